from dataclasses import replace

import pytest
from builders import make_folder

from vqvae2.data.config import DataConfig
from vqvae2.evaluation.class_agreement import TRAINING, evaluate_class_agreement
from vqvae2.evaluation.evaluation import Evaluation


def test_class_agreement_is_a_result_of_the_run(folder):
    evaluation = Evaluation.open(folder)
    training = replace(TRAINING, steps=3, batch=8)
    agreement = evaluate_class_agreement(evaluation, samples_per_class=2, training=training)
    assert agreement.num_samples == 24
    for accuracy in (agreement.on_images, agreement.on_reconstructions, agreement.on_samples):
        assert 0 <= accuracy <= 1
    assert folder.read_metrics().class_agreement == agreement
    again = evaluate_class_agreement(evaluation, samples_per_class=2, training=training)
    assert again == agreement


def test_images_without_classes_are_one_clear_line(evaluation, tmp_path):
    data = DataConfig(source=str(make_folder(tmp_path / "flat", count=12, classes=0)), size=16)
    unlabelled = replace(evaluation, config=replace(evaluation.config, data=data))
    with pytest.raises(ValueError, match="at least 2 classes, got 1; sort them into one sub-fold"):
        evaluate_class_agreement(unlabelled)
