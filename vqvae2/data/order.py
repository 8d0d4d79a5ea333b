"""Which examples come when, as functions of (seed, step): nothing about it is saved.

The examples are dealt in shuffled epochs that follow one another without a gap. Step s of a run
takes places [s B, (s + 1) B) of that sequence, B being the batch of all ranks together; rank r
takes the r-th part. So any number of ranks sees the same joint batches.

An epoch is one permutation of all examples (`Shuffle`). Where examples lie in blocks that are dear
to open, blocks come in random order and examples are shuffled among some blocks at a time
(`BlockShuffle`): few blocks are open at once, and a place is found without walking to it.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from vqvae2.randomness import generator


class Order(Protocol):
    """The order of any epoch."""

    def __len__(self) -> int:
        """Examples in an epoch."""
        ...

    def at(self, places: Tensor, seed: int, epoch: int) -> Tensor:
        """The examples at some places of an epoch, (B,) int64 in [0, N)."""
        ...


@dataclass(frozen=True)
class Shuffle:
    """All examples in one random order.

    Arguments:
        num_examples: N.
    """

    num_examples: int

    def __len__(self) -> int:
        return self.num_examples

    def at(self, places: Tensor, seed: int, epoch: int) -> Tensor:
        """The examples at some places of an epoch."""
        return permutation(self.num_examples, seed, epoch)[places]


@lru_cache(maxsize=4)
def permutation(num_examples: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, (num_examples,) int64."""
    return torch.randperm(num_examples, generator=generator("order", seed, epoch))


@dataclass(frozen=True, eq=False)  # a value of its own: hashing many blocks would take its time
class BlockShuffle:
    """Blocks in random order, and examples in random order within windows of blocks.

    Memory is that of the blocks' sizes and of a window, however many examples there are.

    Arguments:
        counts: examples of each block, in their order.
        window: blocks whose examples are shuffled together.
    """

    counts: tuple[int, ...]
    window: int

    def __len__(self) -> int:
        return sum(self.counts)

    def at(self, places: Tensor, seed: int, epoch: int) -> Tensor:
        """The examples at some places of an epoch."""
        _, starts = epoch_of_blocks(self, seed, epoch)
        windows = torch.searchsorted(starts, places, right=True) - 1
        examples = torch.empty_like(places)
        for window in windows.unique().tolist():
            chosen = windows == window
            order = window_order(self, seed, epoch, window)
            examples[chosen] = order[places[chosen] - starts[window]]
        return examples


@lru_cache(maxsize=4)
def epoch_of_blocks(order: BlockShuffle, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The blocks of an epoch in their order, and the place at which each window begins."""
    noise = generator("blocks", seed, epoch)
    blocks = torch.randperm(len(order.counts), generator=noise)
    ends = torch.tensor(order.counts)[blocks].cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[order.window - 1 : -1 : order.window]])
    return blocks, starts


@lru_cache(maxsize=4)
def window_order(order: BlockShuffle, seed: int, epoch: int, window: int) -> Tensor:
    """The examples of one window in their order."""
    blocks, _ = epoch_of_blocks(order, seed, epoch)
    firsts = list(accumulate(order.counts, initial=0))
    own = blocks[window * order.window :][: order.window].tolist()
    examples = torch.cat([torch.arange(firsts[block], firsts[block + 1]) for block in own])
    noise = generator("window", seed, epoch, window)
    return examples[torch.randperm(len(examples), generator=noise)]


def batch_indices(
    order: Order, batch: int, seed: int, step: int, rank: int = 0, world: int = 1
) -> Tensor:
    """Which examples rank `rank` of `world` takes at `step`, (batch / world,) int64.

    Arguments:
        batch: examples a step of all ranks together; `world` divides it.
    """
    share = batch // world
    first = step * batch + rank * share
    places = torch.arange(first, first + share)
    epochs, within = places // len(order), places % len(order)
    indices = torch.empty_like(places)
    for epoch in epochs.unique().tolist():
        chosen = epochs == epoch
        indices[chosen] = order.at(within[chosen], seed, epoch)
    return indices


def evenly_spaced(num_examples: int, limit: int) -> Tensor:
    """At most `limit` indices at even distances: folders are sorted by class, so no prefix."""
    count = min(num_examples, limit)
    return torch.arange(count) * num_examples // max(1, count)


def inference_batch_size(side: int) -> int:
    """Images of `side` x `side` a pass when nothing is learnt: 1 to 128, by their pixels."""
    return max(1, min(128, 128 * 64 * 64 // (side * side)))
