"""Classifier rejection while samples are drawn: the best samples of each class (Sec. 3.3).

A sample's score is the probability that the judge, a classifier, gives to the class that the
sample was drawn for. Only the best samples are held in memory.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from vqvae2.distributed import World
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.rejection import class_scores
from vqvae2.pipeline import Samples

T = TypeVar("T")


@dataclass(frozen=True)
class SampleKey:
    """A sample that a judge has scored; with its model, label and seed determine the image.

    Arguments:
        label: Its class.
        seed: Its seed.
        score: The judge's probability of the class.
    """

    label: int
    seed: int
    score: float


@dataclass(frozen=True)
class ScoredSample:
    """A sample with its image, (C, S, S) in [0, 1], on the CPU."""

    key: SampleKey
    image: Tensor


class Selection:
    """The `num_images` samples of each class that a judge scores highest.

    Arguments:
        judge: The classifier.
        num_classes: Number of classes of the model.
        num_images: Number of samples of each class that are selected, at most.
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
        keys = map(SampleKey, labels.tolist(), batch.seeds, scores.tolist())
        new = map(ScoredSample, keys, batch.images.cpu())
        self.samples = best(
            [*self.samples, *new], self.num_images, key_of=lambda sample: sample.key
        )

    def keys(self, world: World) -> list[SampleKey]:
        """The best samples of each class over all processes, by class and seed."""
        keys = world.gather_objects([sample.key for sample in self.samples])
        return best(keys, self.num_images, key_of=lambda key: key)


def best(items: Iterable[T], num_images: int, key_of: Callable[[T], SampleKey]) -> list[T]:
    """The items of each class with the highest scores, by class and seed.

    Of equal scores the lower seed is selected.
    """
    by_class: dict[int, list[T]] = defaultdict(list)
    for item in sorted(items, key=lambda item: (-key_of(item).score, key_of(item).seed)):
        by_class[key_of(item).label].append(item)
    return [
        item
        for label in sorted(by_class)
        for item in sorted(by_class[label][:num_images], key=lambda item: key_of(item).seed)
    ]
