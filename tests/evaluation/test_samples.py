from dataclasses import replace

import pytest
import torch
from builders import save_network

from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples, measure_samples
from vqvae2.evaluation.selection import Networks
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.extractors import torchscript
from vqvae2.metrics.features import distances_between, extract_features
from vqvae2.metrics.fid import frechet_distance
from vqvae2.pipeline import Pipeline
from vqvae2.sampling import SamplingConfig


@pytest.fixture(scope="module")
def networks(extractor):
    return Networks(extractor, extractor)


def test_every_set_has_the_same_number_of_images_and_every_metric(evaluation, extractor, networks):
    reports = []
    observed = replace(evaluation, progress=lambda *report: reports.append(report))
    metrics, selected = measure_samples(observed, networks, SampleEvaluationConfig(60, (1.0, 0.5)))
    assert list(metrics.by_fraction) == list(selected) == ["1", "0.5"]
    for measured in metrics.sets().values():
        assert measured.num_images == 60
        assert {"fid", "kid", "precision", "recall", "inception_score"} <= set(measured.values)
        assert set(measured.values) <= set(METRICS)
    assert {title for title, _, _ in reports} >= {"training images", "samples", "comparing"}
    assert metrics.digest == metrics.selector_digest == extractor.digest
    assert len(selected["0.5"].features) == 60


def test_there_may_be_more_samples_than_validation_images(evaluation, extractor, networks):
    metrics, selected = measure_samples(evaluation, networks, SampleEvaluationConfig(400))
    train, validation = evaluation.splits.train, evaluation.splits.validation
    assert len(validation) < 400 < len(train)
    assert metrics.by_fraction["1"].num_images == 400
    for measured in (metrics.validation, metrics.reconstructions):
        assert measured.num_images == len(validation)

    def features(dataset, count):
        return extract_features(extractor, [dataset.batch(evenly_spaced(len(dataset), count))])

    samples = selected["1"].features
    expected = frechet_distance([features(train, 400).features], [samples.features])
    assert metrics.by_fraction["1"]["fid"] == pytest.approx(expected)
    real, held = (features(part, len(validation)).features for part in (train, validation))
    assert metrics.validation["fid"] == pytest.approx(frechet_distance([real], [held]))


def test_samples_have_the_classes_of_the_training_images(evaluation, networks):
    _, selected = measure_samples(evaluation, networks, SampleEvaluationConfig(61, (1.0, 0.5)))
    train = evaluation.splits.train
    counts = train.labels[evenly_spaced(len(train), 61)].bincount(minlength=12)
    assert len(counts.unique()) > 1
    for samples in selected.values():
        assert samples.labels.bincount(minlength=12).tolist() == counts.tolist()


def test_one_network_selects_and_another_measures(evaluation, extractor, networks, tmp_path):
    save_network(tmp_path / "seven.pt", outputs=7)
    seven = torchscript(tmp_path / "seven.pt", "Seven")
    config = SampleEvaluationConfig(24, (1.0, 0.5))
    with pytest.raises(ValueError, match="Seven has 7 classes, the model has 12"):
        measure_samples(evaluation, Networks(seven, seven), config)
    _, selected = measure_samples(evaluation, Networks(seven, extractor), config)
    _, expected = measure_samples(evaluation, networks, config)
    assert torch.equal(selected["0.5"].seeds, expected["0.5"].seeds)


def test_the_metrics_are_those_of_the_sets(evaluation, extractor, networks):
    metrics, _ = measure_samples(evaluation, networks, SampleEvaluationConfig(48))
    real, validation = (
        extract_features(extractor, [part.batch(evenly_spaced(len(part), 48))])
        for part in (evaluation.splits.train, evaluation.splits.validation)
    )
    labels = evaluation.validation.labels[evenly_spaced(len(evaluation.validation), 48)]
    accuracy = validation.class_accuracy(labels, 12)
    expected = distances_between(real, validation).add(class_accuracy=accuracy)
    assert metrics.validation.values == pytest.approx(expected.values)


def test_too_few_images_and_invalid_fractions_are_one_clear_line(evaluation, networks):
    with pytest.raises(ValueError, match=r"Fractions must be in \(0, 1\], got \[0\]"):
        SampleEvaluationConfig(10, (0,))
    with pytest.raises(ValueError, match="at least 10 in each, got 9"):
        measure_samples(evaluation, networks, SampleEvaluationConfig(9))


def test_each_temperature_is_a_set(evaluation, networks):
    config = SampleEvaluationConfig(48, (1.0,), (1.0, 0.1))
    metrics, _ = measure_samples(evaluation, networks, config)
    cool = metrics.by_temperature
    assert cool["1"].values == pytest.approx(metrics.by_fraction["1"].values)
    assert cool["0.1"]["fid"] != cool["1"]["fid"]
    assert list(metrics.sets())[-1] == "by_temperature.0.1"


def test_a_temperature_leaves_the_other_sampling_settings_as_they_are(evaluation, networks):
    pipeline = evaluation.pipeline
    sampling = (SamplingConfig(temperature=0.7, top_k=2),) * 2
    narrow = Pipeline(
        pipeline.autoencoder, replace(pipeline.config, sampling=sampling), pipeline.priors
    )
    metrics, _ = measure_samples(
        replace(evaluation, pipeline=narrow), networks, SampleEvaluationConfig(24, (1.0,), (0.7,))
    )
    expected = metrics.by_fraction["1"].values
    assert metrics.by_temperature["0.7"].values == pytest.approx(expected)


def test_results_of_another_network_of_the_same_name_are_not_replaced(evaluation, extractor):
    config = SampleEvaluationConfig(12)
    metrics = evaluate_samples(evaluation, extractor, config)
    assert evaluation.read().samples == {"Judge": metrics}
    assert evaluation.folder.neighbours("Judge").is_file()
    with pytest.raises(ValueError, match="results of another network named Judge"):
        evaluate_samples(evaluation, replace(extractor, digest="other"), config)
