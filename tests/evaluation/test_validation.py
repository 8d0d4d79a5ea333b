from dataclasses import replace

import pytest

from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.validation import evaluate
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import ClassAgreement


def test_evaluate_measures_reconstructions_and_priors(folder):
    metrics = evaluate(Evaluation.open(folder), limit=8)
    assert folder.read_metrics() == metrics
    assert metrics.reconstruction.num_images == metrics.priors.num_images == 8
    nats = metrics.priors.levels("validation_nats_per_code")
    assert len(nats) == 2
    gap = metrics.priors.levels("gap_nats_per_code")[0]
    assert gap == pytest.approx(nats[0] - metrics.priors.levels("train_nats_per_code")[0])
    bits = metrics.priors.levels("validation_bits_per_dim")
    assert metrics.priors["validation_bits_per_dim"] == pytest.approx(sum(bits))
    for measured in (metrics.reconstruction, metrics.priors):
        assert {*measured.values, *measured.per_level} <= set(METRICS)
    assert metrics.provenance.validation_images == 8


def test_evaluate_leaves_other_results_as_they_are(folder):
    evaluation = Evaluation.open(folder)
    origin = evaluate(evaluation, limit=4).provenance
    agreement = ClassAgreement(0.9, 0.8, 0.7, 12, ClassifierTraining(), origin)
    evaluation.write(replace(evaluation.read(), class_agreement=agreement))
    assert evaluate(evaluation, limit=8).class_agreement == agreement


def test_validation_images_alone_are_decoded_for_them(folder):
    evaluation = Evaluation.open(folder)
    assert len(evaluation.validation) > 0
    assert "splits" not in evaluation.__dict__
    opened = Evaluation.open(folder)
    assert opened.splits.validation is opened.validation
