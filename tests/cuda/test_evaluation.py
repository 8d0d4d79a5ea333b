"""Evaluation on a simulated GPU: the results of the CPU, and no read within a batch."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import small_autoencoder, synthetic_images
from simulated_cuda import SimulatedCuda
from small_runs import small_run
from torch import Tensor

from vqvae2.data.images import quiet
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import dataset_images, reconstructed_images
from vqvae2.evaluation.labelled_sets import reconstructed_set, sampled_set
from vqvae2.evaluation.out_of_distribution import image_scores
from vqvae2.evaluation.selection import Networks, draw_samples
from vqvae2.metrics.classifier import (
    ClassifierTraining,
    ResNet,
    accuracy_by_class,
    as_extractor,
    train_classifier,
)
from vqvae2.metrics.distortion import measure_distortion, measure_pairs
from vqvae2.metrics.features import extract_features
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.runs.folder import RunFolder

CLASSES = 12
LABELS = torch.arange(24) % CLASSES


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation:
        yield simulation


@pytest.fixture
def evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """Of untrained models of two levels, in batches of 8 images."""
    for module in ("data.images", "evaluation.image_sets", "metrics.classifier"):
        monkeypatch.setattr(f"vqvae2.{module}.inference_batch_size", lambda side: 8)
    monkeypatch.setattr("vqvae2.evaluation.image_sets.SAMPLING_BATCH", 8)
    monkeypatch.setattr("vqvae2.evaluation.out_of_distribution.BATCH", 8)
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    grids = autoencoder.config.grids(16, 16)
    config = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    torch.manual_seed(0)
    priors = [
        Prior(config, Domain(grid=grid, coarser=tuple(grids[:level]), num_classes=CLASSES)).eval()
        for level, grid in enumerate(grids)
    ]
    pipeline = Pipeline(autoencoder, PipelineConfig(image_size=16), priors)
    run = small_run()
    run = replace(run, data=replace(run.data, synthetic_images=120))
    return Evaluation(RunFolder(tmp_path), run, pipeline)


def classifier() -> ResNet:
    torch.manual_seed(0)
    return ResNet(CLASSES, 8, side=16).eval()


def require_asynchronous_samples(cuda: SimulatedCuda) -> None:
    """As `require_asynchronous`, but each level reads whether labels and coarser codes are valid.

    That is once per map, not per position.
    """
    cuda.counts.reads = [read for read in cuda.counts.reads if "domain.py" not in read]
    cuda.counts.require_asynchronous()


class Watched:
    """Batches that fail if anything was read since the one before."""

    def __init__(self, batches: Iterable[Tensor], cuda: SimulatedCuda) -> None:
        self.batches, self.cuda, self.count = batches, cuda, 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.batches:
            self.cuda.counts.require_asynchronous()
            yield batch
            self.count += 1
        self.cuda.counts.require_asynchronous()


def test_distortion_and_usage_are_read_once_at_the_end(cuda, evaluation):
    dataset, model = evaluation.validation, evaluation.pipeline.autoencoder
    expected = measure_distortion(model, dataset.batches(torch.arange(20)))
    model.to("cuda")
    cuda.reset()
    batches = Watched(dataset.batches(torch.arange(20), "cuda"), cuda)
    measured = measure_distortion(model, batches)
    assert batches.count == 3
    assert len(cuda.counts.reads) == 3, "the sums, and the counts of two levels"
    assert measured.flat() == pytest.approx(expected.flat(), rel=1e-5)


def test_errors_of_pairs_are_read_once_at_the_end(cuda):
    images, others = synthetic_images(16, size=16), synthetic_images(16, size=16, first=16)
    expected = measure_pairs([(images, others)])
    pairs = list(zip(images.to("cuda").split(4), others.to("cuda").split(4), strict=True))
    cuda.reset()
    assert measure_pairs(Watched(pairs, cuda)).flat() == pytest.approx(expected.flat(), rel=1e-5)
    assert len(cuda.counts.reads) == 1


def test_features_are_read_when_the_next_batch_is_computed(cuda, evaluation):
    dataset, model, indices = evaluation.validation, classifier(), torch.arange(20)
    expected = extract_features(
        as_extractor(model, "own"), dataset_images(dataset, indices, "images", quiet)
    )
    extractor = as_extractor(model.to("cuda"), "own")
    evaluation.pipeline.to("cuda")
    cuda.reset()
    batches = Watched(dataset_images(dataset, indices, "images", quiet), cuda)
    features = extract_features(extractor, batches)
    torch.testing.assert_close(features.features, expected.features)
    torch.testing.assert_close(features.probabilities, expected.probabilities)
    extract_features(extractor, Watched(reconstructed_images(evaluation, dataset, indices), cuda))
    # Features and probabilities of three batches; the sharpness of those that are on the device.
    assert cuda.counts.waits == (2 + 4) * 3


def test_samples_and_the_scores_of_a_second_network_never_make_the_host_wait(cuda, evaluation):
    networks = Networks(as_extractor(classifier(), "first"), as_extractor(classifier(), "second"))
    counts = torch.ones(CLASSES).long()
    expected = draw_samples(evaluation, networks, counts, 0.5)
    model = classifier().to("cuda")
    networks = Networks(as_extractor(model, "first"), as_extractor(model, "second"))
    evaluation.pipeline.to("cuda")
    cuda.reset()
    samples = draw_samples(evaluation, networks, counts, 0.5)
    require_asynchronous_samples(cuda)
    assert len(samples.labels) == 24
    torch.testing.assert_close(samples.features.features, expected.features.features)
    torch.testing.assert_close(samples.scores, expected.scores)


def test_sets_of_classifiers_are_stored_without_waiting(cuda, evaluation):
    expected = [
        reconstructed_set(evaluation, evaluation.validation, torch.arange(20)),
        sampled_set(evaluation, LABELS, torch.arange(24)),
    ]
    evaluation.pipeline.to("cuda")
    cuda.reset()
    sets = [
        reconstructed_set(evaluation, evaluation.validation, torch.arange(20)),
        sampled_set(evaluation, LABELS, torch.arange(24)),
    ]
    require_asynchronous_samples(cuda)
    for images, others in zip(sets, expected, strict=True):
        rows = torch.arange(len(others))
        difference = images.batch(rows).int() - others.batch(rows).int()
        assert difference.abs().max() <= 1, "rounding"


def test_a_classifier_is_trained_and_tested_without_waiting(cuda, evaluation):
    dataset = evaluation.splits.train
    training = ClassifierTraining(depth=8, steps=3, batch=8)
    expected = train_classifier(dataset, CLASSES, training)
    cuda.reset()

    def progress(step: int, steps: int) -> None:
        if step > 1:  # the first step copies the weights
            cuda.counts.require_asynchronous()
        cuda.reset()

    model = train_classifier(dataset, CLASSES, training, "cuda", progress)
    cuda.reset()
    accuracy = accuracy_by_class(model, evaluation.validation, CLASSES)
    cuda.counts.require_asynchronous()
    for weight, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(weight.cpu(), other, rtol=1e-3, atol=1e-4)
    of_cpu = accuracy_by_class(expected, evaluation.validation, CLASSES)
    torch.testing.assert_close(accuracy, of_cpu, equal_nan=True)


def test_scores_of_images_are_read_when_the_next_batch_is_computed(cuda, evaluation):
    named = replace(evaluation.pipeline.config, class_names=tuple(map(str, range(CLASSES))))
    evaluation.pipeline.config = named
    expected = image_scores(evaluation, evaluation.validation, 20, "images")
    evaluation.pipeline.to("cuda")
    cuda.reset()
    scores = image_scores(evaluation, evaluation.validation, 20, "images")
    cuda.counts.require_asynchronous()
    assert scores.keys() == expected.keys()
    for name, values in scores.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-4, atol=1e-3)
