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

from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import sample_seeds
from vqvae2.evaluation.labelled_sets import real_set, reconstructed_set, sampled_set
from vqvae2.metrics.classifier import (
    ClassifierTraining,
    LabelledImages,
    accuracy_by_class,
    require_classes,
    train_classifier,
)
from vqvae2.metrics.results import AccuracyScore, ClassAccuracy

Source = Callable[[], LabelledImages]
"""Makes a training set, on all processes together; a function, so that few are on disk."""


def evaluate_accuracy_score(
    evaluation: Evaluation, limit: int, training: ClassifierTraining
) -> AccuracyScore:
    """Top-1 accuracy of three classifiers on two sets of images; writes metrics.json.

    Several processes share the images, then train one classifier each.

    Arguments:
        evaluation: the run.
        limit: training images of each classifier, at most.
        training: settings of the classifiers.
    """
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
        "real": lambda: real_set(evaluation, data.train, indices),
        "reconstructions": lambda: reconstructed_set(evaluation, data.train, indices),
        "samples": lambda: sampled_set(evaluation, labels, sample_seeds(labels, num_classes)),
    }
    trained_on = dict(classifier_accuracies(evaluation, sources, tests, training))
    origin = evaluation.provenance(len(data.validation))
    score = AccuracyScore(len(indices), training, data.class_names, trained_on, origin)
    evaluation.write(replace(evaluation.read(), accuracy_score=score))
    return score


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
            yield (
                name,
                {
                    test: class_accuracy(row, images.labels)
                    for (test, images), row in zip(tests.items(), rows, strict=True)
                },
            )


def local_accuracies(
    evaluation: Evaluation,
    sources: Mapping[str, Source],
    tests: Mapping[str, LabelledImages],
    training: ClassifierTraining,
) -> Tensor:
    """Accuracy by class on each test set, (tests, K), of the source of this process's rank."""
    num_classes = len(evaluation.splits.class_names)
    local: list[tuple[str, LabelledImages]] = []
    for rank, (name, source) in enumerate(sources.items()):
        dataset = source()
        local += [(name, dataset)] if rank == evaluation.world.rank else []
    if not local:
        return torch.zeros(len(tests), num_classes, dtype=torch.float64)
    [(name, dataset)] = local
    progress = partial(evaluation.progress, f"classifier of {name}")
    model = train_classifier(dataset, num_classes, training, evaluation.device, progress)
    return torch.stack([accuracy_by_class(model, test, num_classes) for test in tests.values()])


def class_accuracy(by_class: Tensor, labels: Tensor) -> ClassAccuracy:
    """Accuracy by class (K,), NaN without images, and over all images of labels (N,)."""
    counts = labels.bincount(minlength=len(by_class)).double()
    top1 = float(by_class.nan_to_num() @ counts / counts.sum())
    shares = (None if math.isnan(share) else share for share in by_class.tolist())
    return ClassAccuracy(top1, tuple(shares))
