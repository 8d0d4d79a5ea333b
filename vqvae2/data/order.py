"""Which examples come when, as functions of (seed, step): nothing about it is saved.

The examples are dealt in shuffled epochs that follow one another without a gap. Step s of a run
takes places [s B, (s + 1) B) of that sequence, B being the batch of all ranks together; rank r
takes the r-th part. So any number of ranks sees the same joint batches.
"""

from functools import lru_cache

import torch
from torch import Tensor

from vqvae2.randomness import generator


@lru_cache(maxsize=4)
def permutation(num_examples: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, (num_examples,) int64."""
    return torch.randperm(num_examples, generator=generator("order", seed, epoch))


def batch_indices(
    num_examples: int, batch: int, seed: int, step: int, rank: int = 0, world: int = 1
) -> Tensor:
    """Which examples rank `rank` of `world` takes at `step`, (batch / world,) int64.

    Arguments:
        batch: examples a step of all ranks together; `world` divides it.
    """
    share = batch // world
    first = step * batch + rank * share
    places = torch.arange(first, first + share)
    epochs, within = places // num_examples, places % num_examples
    indices = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        chosen = epochs == epoch
        indices[chosen] = permutation(num_examples, seed, epoch)[within[chosen]]
    return indices


def spread(num_examples: int, limit: int) -> Tensor:
    """At most `limit` indices at even distances: folders are sorted by class, so no prefix."""
    count = min(num_examples, limit)
    return torch.arange(count) * num_examples // max(1, count)


def at_once(side: int) -> int:
    """Pictures of `side` x `side` a pass when nothing is learnt: 1 to 128, by their pixels."""
    return max(1, min(128, 128 * 64 * 64 // (side * side)))
