import numpy as np
import pytest
import torch
from builders import synthetic_images

from vqvae2.data.images import load_images
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.out_of_distribution import (
    evaluate_out_of_distribution,
    image_scores,
    unlabelled_log_prob,
)
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png


def test_images_unlike_those_of_the_run_are_detected(folder, tmp_path):
    noise = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for number, image in enumerate(noise):
        save_png(tmp_path / "noise" / f"{number:03d}.png", to_pil(image))
    evaluation = Evaluation.open(folder)
    result = evaluate_out_of_distribution(evaluation, tmp_path / "noise", 20)
    assert (result.num_validation, result.num_outside) == (20, 20)
    assert result.scores["reconstruction"].auroc > 0.9
    assert folder.read_metrics().out_of_distribution[str(tmp_path / "noise")] == result
    others = load_images(tmp_path / "noise", 16)
    scores = image_scores(evaluation, others, 20, "")
    expected = result.scores["all codes"].outside
    assert float(scores["all codes"].mean()) == pytest.approx(expected)
    assert result.provenance.validation_images == 20


def test_without_a_label_every_class_has_the_same_weight(folder):
    pipeline = Evaluation.open(folder).pipeline
    images = synthetic_images(3, size=folder.read().data.size)
    log_prob = unlabelled_log_prob(pipeline, images)
    num_classes = len(pipeline.config.class_names)
    joint = torch.stack(
        [
            sum(part.double().flatten(1).sum(1) for part in pipeline.log_prob(images, [label] * 3))
            for label in range(num_classes)
        ]
    )
    expected = joint.logsumexp(0) - np.log(num_classes)
    torch.testing.assert_close(log_prob.sum(0), expected, rtol=1e-9, atol=1e-6)
