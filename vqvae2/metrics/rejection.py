"""Classifier rejection: draw too many, keep those that look most like their class (Sec. 3.3).

A sample's score is a classifier's probability of the class that it was drawn for. Keeping a
smaller fraction trades diversity for quality, as truncating a GAN's noise does.

Legend: `N` samples, `K` outputs of the classifier.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.distributed import World
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.extractors import Extractor
from vqvae2.pipeline import Samples


@dataclass(frozen=True)
class SelectedSample:
    """A sample that was kept.

    Arguments:
        image: (C, S, S) in [0, 1], on the CPU.
        label: its class.
        seed: that it was drawn with.
        score: the judge's probability of its class.
    """

    image: Tensor
    label: int
    seed: int
    score: float


@torch.no_grad()
def best_of(
    parts: Iterable[Samples], judge: Extractor, num_classes: int, count: int
) -> list[SelectedSample]:
    """The best `count` samples of each class, by class and seed; no more are held at any time."""
    best: dict[int, list[tuple[float, int, SelectedSample]]] = {}
    number = 0
    for part in parts:
        probabilities = judge.probabilities(to_uint8(part.images)).cpu()
        scores = intended(probabilities, part.labels.cpu(), num_classes, judge.name)
        drawn = zip(part.images.cpu(), part.labels.tolist(), part.seeds, scores, strict=True)
        for image, label, seed, score in drawn:
            heap = best.setdefault(label, [])
            # Of equal scores the earlier stays; no two numbers are equal, so nothing else counts.
            heapq.heappush(
                heap, (float(score), -number, SelectedSample(image, label, seed, float(score)))
            )
            number += 1
            if len(heap) > count:
                heapq.heappop(heap)
    kept = [chosen for heap in best.values() for _, _, chosen in heap]
    return sorted(kept, key=lambda chosen: (chosen.label, chosen.seed))


def best_of_all(found: list[SelectedSample], count: int, world: World) -> list[tuple[int, int]]:
    """(label, seed) of the best `count` of each class among what each rank found."""
    own = [[chosen.label, chosen.seed] for chosen in found]
    keys = world.gather(torch.tensor(own, dtype=torch.int64).reshape(-1, 2))
    scores = world.gather(torch.tensor([chosen.score for chosen in found], dtype=torch.float64))
    order = keys[:, 1].sort(stable=True).indices  # of equal scores the lower seed stays
    keys, scores = keys[order], scores[order]
    counts = torch.full((int(keys[:, 0].max()) + 1,), count)
    kept = keys[keep_best(scores, keys[:, 0], counts)]
    return sorted((label, seed) for label, seed in kept.tolist())


def intended(probabilities: Tensor, labels: Tensor, num_classes: int, name: str) -> Tensor:
    """The probability of each sample's own class, (N,).

    Arguments:
        probabilities: (N, K); K is the number of classes, or one more where the first output is
            "background", as in networks of TensorFlow's time.
        labels: (N,) int64.
        name: of the classifier, for the message.
    """
    first = first_class(probabilities.shape[1], num_classes, name)
    return probabilities.gather(1, labels[:, None] + first)[:, 0]


def first_class(outputs: int, num_classes: int, name: str) -> int:
    """Which output of a network is the first class, 0 or 1; ValueError if it knows others."""
    if outputs not in (num_classes, num_classes + 1):
        raise ValueError(
            f"The network {name} tells {outputs} classes apart, the model has {num_classes}: it "
            "cannot judge these samples; give a network of the same classes, or own."
        )
    return outputs - num_classes


def keep_best(scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Indices of the best samples of each class, in their own order.

    Arguments:
        scores: (N,), the higher the better; equal scores keep the earlier sample.
        labels: (N,) int64.
        counts: (K,), how many of each class are kept, at most as many as there are.
    """
    kept = []
    for label, count in enumerate(counts.tolist()):
        members = (labels == label).nonzero()[:, 0]
        order = scores[members].sort(descending=True, stable=True).indices
        kept.append(members[order[:count]])
    return torch.cat(kept).sort().values
