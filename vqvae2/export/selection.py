"""Classifier rejection while samples are drawn: the best samples of each class (Sec. 3.3).

A sample's score is the probability that the judge, a classifier, gives to the class that the
sample was drawn for. Only the best samples are held in memory.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqvae2.distributed import World
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.rejection import class_scores
from vqvae2.pipeline import Samples


@dataclass(frozen=True)
class Sample:
    """A sample with its image (C, S, S) in [0, 1] on the CPU, and the score of a judge if any."""

    label: int
    seed: int
    image: Tensor
    score: float = 0.0


def unscored_samples(batch: Samples) -> Iterator[Sample]:
    """The samples of a batch, one by one."""
    return map(Sample, batch.labels.tolist(), batch.seeds, batch.images.cpu())


class Selection:
    """The samples of each class that a judge scores highest.

    Arguments:
        judge: The classifier.
        num_classes: Number of classes of the model.
        num_images: Maximum number of selected samples of each class.
    """

    def __init__(self, judge: Extractor, num_classes: int, num_images: int) -> None:
        self.judge = judge
        self.num_classes, self.num_images = num_classes, num_images
        self.samples: list[Sample] = []

    @torch.no_grad()
    def add(self, batch: Samples) -> None:
        """Scores a batch and selects among it and the samples selected before."""
        probabilities = self.judge.probabilities(to_uint8(batch.images)).cpu()
        labels, name = batch.labels.cpu(), self.judge.name
        scores = class_scores(probabilities, labels, self.num_classes, name).tolist()
        pairs = zip(unscored_samples(batch), scores, strict=True)
        new = [replace(sample, score=score) for sample, score in pairs]
        self.samples = best_of_each_class([*self.samples, *new], self.num_images)

    def pairs(self, world: World) -> list[tuple[int, int]]:
        """(label, seed) of the best samples of each class over all processes."""
        without_images = [replace(sample, image=torch.empty(0)) for sample in self.samples]
        samples = world.gather_objects(without_images)
        best = best_of_each_class(samples, self.num_images)
        return [(sample.label, sample.seed) for sample in best]

    def local(self, pairs: Sequence[tuple[int, int]]) -> list[Sample]:
        """The samples of this process among the pairs (label, seed)."""
        selected = set(pairs)
        return [sample for sample in self.samples if (sample.label, sample.seed) in selected]


def best_of_each_class(samples: Sequence[Sample], num_images: int) -> list[Sample]:
    """The samples of each class with the highest scores, by class and seed.

    Of equal scores the lower seed is selected.
    """
    by_class: dict[int, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: (-sample.score, sample.seed)):
        by_class[sample.label].append(sample)
    best = [sample for members in by_class.values() for sample in members[:num_images]]
    return sorted(best, key=lambda sample: (sample.label, sample.seed))
