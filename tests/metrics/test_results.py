"""Results as values, in metrics.json and back."""

import json

import pytest

from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.metrics.results import (
    AccuracyScore,
    ClassAccuracy,
    ClassAgreement,
    Detection,
    Measurement,
    OutOfDistribution,
    Provenance,
    RunMetrics,
    SampleMetrics,
)
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig

ORIGIN = Provenance(
    "small", "synthetic", 16, 20, "f0", 0, ("a", "b"), {"torch": "2"}, "2025-01-01"
)
SET = Measurement(20, {"fid": 1.5, "kid_deviation": None}, {})


def complete() -> RunMetrics:
    samples = SampleMetrics(
        "d", 8, "Net", "d", "uint8", (SamplingConfig(),), "0, 1", SET, SET, {"0.5": SET},
        {"0.8": SET}, ORIGIN, ClassifierTraining(),
    )  # fmt: skip
    accuracy = ClassAccuracy(0.5, (None, 0.5))
    tested = {"real": accuracy}
    return RunMetrics(
        provenance=ORIGIN,
        reconstruction=Measurement(20, {"mse": 0.1, "ssim": None}, {"perplexity": (3.0, 4.0)}),
        priors=Measurement(20, {}, {"validation_nats_per_code": (2.5,)}),
        samples={"Net": samples},
        accuracy_score=AccuracyScore(
            9, ClassifierTraining(), ("a", "b"), {"real": tested}, ORIGIN
        ),
        out_of_distribution={
            "x": OutOfDistribution(9, 8, {"s": Detection(0.8, 1.0, 0.0)}, ORIGIN)
        },
        class_agreement=ClassAgreement(0.9, 0.8, 0.7, 300, ClassifierTraining(), ORIGIN),
    )


def test_all_results_come_back_from_metrics_json(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.read_metrics()
    folder.write_metrics(complete())
    assert folder.read_metrics() == complete()
    assert folder.read_metrics()


def test_metrics_of_another_version_count_as_not_measured(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_metrics(complete())
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    assert folder.read_metrics() == RunMetrics()


def test_every_scalar_has_a_dotted_name():
    flat = complete().flat()
    assert flat["reconstruction.mse"] == 0.1
    assert flat["reconstruction.perplexity.1"] == 4
    assert "reconstruction.ssim" not in flat
    assert flat["samples.Net.by_fraction.0.5.fid"] == 1.5
    assert flat["accuracy_score.real.real"] == 0.5
    assert flat["out_of_distribution.x.s"] == 0.8
    assert flat["class_agreement.samples"] == 0.7


def test_a_metric_that_is_not_defined_is_none_and_has_no_value():
    assert SET.get("kid_deviation") is None
    assert SET.levels("perplexity") == ()
    with pytest.raises(KeyError):
        SET["kid_deviation"]
