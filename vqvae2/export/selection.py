"""Classifier rejection while samples are drawn: the best samples of each class (Sec. 3.3).

A sample's score is the probability that the judge, a classifier, gives to the class that the
sample was drawn for. Only the best samples are held in memory.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqvae2.distributed import World
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.rejection import class_scores
from vqvae2.pipeline import Samples


@dataclass(frozen=True)
class ScoredSample:
    """A sample that a judge has scored, with its image (C, S, S) in [0, 1] on the CPU."""

    label: int
    seed: int
    score: float
    image: Tensor


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
        self.samples: list[ScoredSample] = []

    @torch.no_grad()
    def add(self, batch: Samples) -> None:
        """Scores a batch and selects among it and the samples selected before."""
        labels = batch.labels.cpu()
        probabilities = self.judge.probabilities(to_uint8(batch.images)).cpu()
        scores = class_scores(probabilities, labels, self.num_classes, self.judge.name)
        new = map(ScoredSample, labels.tolist(), batch.seeds, scores.tolist(), batch.images.cpu())
        self.samples = best_of_each_class([*self.samples, *new], self.num_images)

    def pairs(self, world: World) -> list[tuple[int, int]]:
        """(label, seed) of the best samples of each class over all processes."""
        without_images = [replace(sample, image=torch.empty(0)) for sample in self.samples]
        samples = world.gather_objects(without_images)
        best = best_of_each_class(samples, self.num_images)
        return [(sample.label, sample.seed) for sample in best]


def best_of_each_class(samples: Sequence[ScoredSample], num_images: int) -> list[ScoredSample]:
    """The samples of each class with the highest scores, by class and seed.

    Of equal scores the lower seed is selected.
    """
    by_class: dict[int, list[ScoredSample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: (-sample.score, sample.seed)):
        by_class[sample.label].append(sample)
    best = [sample for members in by_class.values() for sample in members[:num_images]]
    return sorted(best, key=lambda sample: (sample.label, sample.seed))
