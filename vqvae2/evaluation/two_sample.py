"""Classifier two-sample tests (Lopez-Paz and Oquab 2017, arXiv 1610.06545).

A small classifier learns to tell real images from reconstructions, or from samples, and is tested
on images of both that it has not seen. Its AUROC is 0.5 where nobody could tell, and 1 where one
look is enough; unlike distances of features it needs no network that was trained on other images.

Legend: `B` batch, `N` images, `S` their side.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import final

import torch
from torch import Tensor

from vqvae2.data.order import Shuffle, evenly_spaced, inference_batch_size
from vqvae2.evaluation.accuracy_score import Source
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import sample_seeds
from vqvae2.evaluation.labelled_sets import real_set, reconstructed_set, sampled_set
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.auroc import auroc
from vqvae2.metrics.classifier import ClassifierTraining, LabelledImages, train_classifier
from vqvae2.metrics.results import TwoSampleTests
from vqvae2.transfers import arrivals, to_device

TRAINING = ClassifierTraining(depth=8, steps=1000, batch=64, learning_rate=0.1)


def evaluate_two_sample(
    evaluation: Evaluation, num_images: int, training: ClassifierTraining = TRAINING
) -> TwoSampleTests:
    """Tests reconstructions and samples against real images; writes metrics.json.

    Arguments:
        evaluation: the run.
        num_images: of each set, at most; half of them train the classifier.
        training: of the classifier.

    Raises:
        ValueError: too few images for two batches.
    """
    data, num_classes = evaluation.splits, evaluation.pipeline.num_classes
    validation = evenly_spaced(len(data.validation), num_images)
    train = evenly_spaced(len(data.train), num_images)
    if min(len(validation), len(train)) < training.batch:
        raise ValueError(
            f"A two-sample test needs at least {training.batch} images of each set, got "
            f"{len(validation)} validation and {len(train)} training images."
        )
    labels = data.train.labels[train]
    sets: dict[str, tuple[Source, Source]] = {
        "reconstructions": (
            lambda: real_set(evaluation, data.validation, validation),
            lambda: reconstructed_set(evaluation, data.validation, validation),
        ),
        "samples": (
            lambda: real_set(evaluation, data.train, train),
            lambda: sampled_set(evaluation, labels, sample_seeds(labels, num_classes)),
        ),
    }
    aurocs = {}
    for name, (real, other) in sets.items():
        progress = partial(evaluation.progress, f"classifier of {name}")
        aurocs[name] = two_sample_auroc(
            real(), other(), training, str(evaluation.device), progress
        )
    counts = {"reconstructions": len(validation), "samples": len(train)}
    origin = evaluation.provenance(len(validation))
    tests = TwoSampleTests(counts, training, aurocs, origin)
    evaluation.write(replace(evaluation.read(), two_sample=tests))
    return tests


def two_sample_auroc(
    real: LabelledImages,
    other: LabelledImages,
    training: ClassifierTraining,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> float:
    """AUROC of a classifier that was trained on one half of two sets, on the other half."""
    halves = [torch.arange(len(real))[start::2] for start in range(2)]
    seen, unseen = (TwoSets(real, other, half) for half in halves)
    model = train_classifier(seen, 2, training, device, progress)
    with torch.no_grad():
        parts = torch.arange(len(unseen)).split(inference_batch_size(unseen.size))
        batches = (to_float(to_device(unseen.batch(part), device)) for part in parts)
        logits = (model(batch) for batch in batches)
        scores = torch.cat([rows for (rows,) in arrivals([x[:, 0] - x[:, 1]] for x in logits)])
    return auroc(scores[unseen.labels == 0], scores[unseen.labels == 1])


@final
class TwoSets:
    """The same indices of two sets of images, labelled 0 and 1.

    Arguments:
        real: images with the label 0.
        other: as many images, with the label 1.
        indices: (N,) of both sets.
    """

    def __init__(self, real: LabelledImages, other: LabelledImages, indices: Tensor) -> None:
        self.sets, self.indices, self.size = (real, other), indices, real.size
        self.labels = torch.arange(2).repeat_interleave(len(indices))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> Shuffle:
        """All of them in one random order."""
        return Shuffle(len(self))

    def batch(self, indices: Tensor) -> Tensor:
        """The images of (B,) indices, (B, 3, S, S) uint8."""
        images = torch.empty(len(indices), 3, self.size, self.size, dtype=torch.uint8)
        for label, source in enumerate(self.sets):
            chosen = self.labels[indices] == label
            if chosen.any():
                rows = self.indices[indices[chosen] - label * len(self.indices)]
                images[chosen] = source.batch(rows)
        return images
