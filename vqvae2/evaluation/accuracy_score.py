"""The classification accuracy score of a run (Sec. 4.3 of VQ-VAE-2).

After Ravuri and Vinyals 2019 (arXiv 1905.10887): a classifier is trained on class-conditional
samples and tested on real images. Missing diversity and confused classes cost accuracy, and so do
codes that lose what distinguishes classes.

    trained on    real images, their reconstructions, samples (one for the class of each image)
    tested on     real validation images, their reconstructions

All classifiers are the same network with the same training and the same images per class.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, Progress
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import (
    dataset_images,
    reconstructed_images,
    sample_seeds,
    sampled_images,
    tracked,
)
from vqvae2.metrics.classifier import (
    ClassifierTraining,
    ImagesInMemory,
    LabelledImages,
    ResNet,
    accuracy_by_class,
    labelled_batches,
    require_classes,
    train_classifier,
)
from vqvae2.metrics.results import AccuracyScore, ClassAccuracy

Source = Callable[[], LabelledImages]
"""Makes a training set, on all processes together; a function, so that few are in memory."""


def evaluate_accuracy_score(
    evaluation: Evaluation, limit: int, training: ClassifierTraining
) -> AccuracyScore:
    """Measures the score of a run and writes it into metrics.json.

    Several processes share the images, then train one classifier each.

    Arguments:
        evaluation: the run.
        limit: training images of each classifier, at most.
        training: settings of the classifiers.
    """
    score = measure_accuracy_score(evaluation, limit, training)
    evaluation.write(replace(evaluation.read(), accuracy_score=score))
    return score


def measure_accuracy_score(
    evaluation: Evaluation, limit: int, training: ClassifierTraining
) -> AccuracyScore:
    """Top-1 accuracy of three classifiers on two sets of images, over all and by class."""
    data = evaluation.splits
    num_classes, indices = len(data.class_names), evenly_spaced(len(data.train), limit)
    labels = data.train.labels[indices]
    require_classes(labels.bincount(minlength=num_classes))
    everything = torch.arange(len(data.validation))
    tests: dict[str, LabelledImages] = {
        "real": data.validation,
        "reconstructions": reconstructed_set(evaluation, data.validation, everything),
    }
    sources: dict[str, Source] = {
        "real": lambda: ImagesInMemory(data.train.batch(indices), labels),
        "reconstructions": lambda: reconstructed_set(evaluation, data.train, indices),
        "samples": lambda: sampled_set(evaluation, labels, sample_seeds(labels, num_classes)),
    }
    trained_on = dict(classifier_accuracies(evaluation, sources, tests, training))
    origin = evaluation.provenance(len(data.validation))
    return AccuracyScore(len(indices), training, data.class_names, trained_on, origin)


def classifier_accuracies(
    evaluation: Evaluation,
    sources: Mapping[str, Source],
    tests: Mapping[str, LabelledImages],
    training: ClassifierTraining,
) -> Iterator[tuple[str, dict[str, ClassAccuracy]]]:
    """Trains one classifier per source; yields its name and its accuracy on each test set.

    Each process trains another classifier, and all have the results.
    """
    world, names = evaluation.world, list(sources)
    for begin in range(0, len(names), world.size):
        some = {name: sources[name] for name in names[begin : begin + world.size]}
        scores = world.gather(local_accuracies(evaluation, some, tests, training)[None])
        for name, rows in zip(some, scores, strict=False):
            yield name, {test: named(row) for test, row in zip(tests, rows, strict=True)}


def local_accuracies(
    evaluation: Evaluation,
    sources: Mapping[str, Source],
    tests: Mapping[str, LabelledImages],
    training: ClassifierTraining,
) -> Tensor:
    """`accuracies` on each test set, (tests, 1 + K), of the source of this process's rank."""
    world, num_classes = evaluation.world, len(evaluation.splits.class_names)
    local: list[tuple[str, LabelledImages]] = []
    for rank, (name, source) in enumerate(sources.items()):
        dataset = source()
        local += [(name, dataset)] if rank == world.rank else []
    if not local:
        return torch.zeros(len(tests), 1 + num_classes, dtype=torch.float64)
    [(name, dataset)] = local
    report = partial(report_step, evaluation.progress, name, training.steps)
    model = train_classifier(dataset, num_classes, training, evaluation.device, report)
    return torch.stack([accuracies(model, test, num_classes) for test in tests.values()])


def report_step(progress: Progress, name: str, steps: int, step: int) -> None:
    """Reports a step of a classifier's training."""
    progress(f"classifier of {name}", step, steps)


def accuracies(model: ResNet, test: LabelledImages, num_classes: int) -> Tensor:
    """Top-1 accuracy over all images, then by class, (1 + K,) float64; NaN without images."""
    by_class = accuracy_by_class(
        model, labelled_batches(test, torch.arange(len(test))), num_classes
    )
    counts = test.labels.bincount(minlength=num_classes)
    correct = by_class.nan_to_num() @ counts.double()
    return torch.cat([(correct / counts.sum())[None], by_class])


def named(row: Tensor) -> ClassAccuracy:
    """A row (1 + K,) of `accuracies`, with None for NaN."""
    top1, *by_class = row.tolist()
    return ClassAccuracy(top1, tuple(None if math.isnan(share) else share for share in by_class))


def reconstructed_set(
    evaluation: Evaluation, dataset: ImageDataset, indices: Tensor
) -> ImagesInMemory:
    """Reconstructions of the images of indices (N,), with their labels."""
    local, progress = evaluation.world.shard_nonempty(indices), evaluation.progress
    originals = dataset_images(dataset, local)
    batches = reconstructed_images(evaluation.pipeline, originals)
    batches = tracked(batches, "reconstructions", len(local), progress)
    return ImagesInMemory(
        evaluation.world.gather(torch.cat(list(batches))), dataset.labels[indices]
    )


def sampled_set(evaluation: Evaluation, labels: Tensor, seeds: Tensor) -> ImagesInMemory:
    """One sample for each of labels (N,) and seeds (N,)."""
    world, progress = evaluation.world, evaluation.progress
    local = world.shard_nonempty(labels), world.shard_nonempty(seeds)
    batches = sampled_images(evaluation.pipeline, *local)
    batches = tracked(batches, "samples", len(local[0]), progress)
    return ImagesInMemory(world.gather(torch.cat(list(batches))), labels)
