"""The order of training examples, as a function of (seed, step): nothing about it is saved.

Examples come in shuffled epochs that follow one another without a gap. Step s takes the positions
[s B, (s + 1) B) of that sequence, where B is the batch of all processes together; process r takes
the r-th part. The joint batches do not depend on the number of processes.

An epoch is one permutation of all examples (`Shuffle`). Where examples are stored in blocks that
are slow to open, blocks come in random order and examples are shuffled within windows of blocks
(`BlockShuffle`): few blocks are open at once, and any position is computed directly.

Legend: `B` batch, `N` examples.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.randomness import generator


@dataclass(frozen=True)
class Shuffle:
    """One random permutation of all examples per epoch.

    Arguments:
        num_examples: N.
    """

    num_examples: int

    def __len__(self) -> int:
        return self.num_examples

    def at(self, positions: Tensor, seed: int, epoch: int) -> Tensor:
        """The examples at some positions of an epoch, (B,) int64."""
        return permutation(self.num_examples, seed, epoch)[positions]


@lru_cache(maxsize=4)
def permutation(num_examples: int, seed: int, epoch: int) -> Tensor:
    """The order of one epoch, (N,) int64."""
    return torch.randperm(num_examples, generator=generator("order", seed, epoch))


@dataclass(frozen=True, eq=False)  # hashed by identity: hashing many blocks would be slow
class BlockShuffle:
    """Blocks in random order, and examples in random order within windows of blocks.

    Memory depends on the number of blocks and on a window, not on the number of examples.

    Arguments:
        counts: Number of examples of each block.
        window: Number of consecutive blocks whose examples are shuffled together.
    """

    counts: tuple[int, ...]
    window: int

    def __len__(self) -> int:
        return sum(self.counts)

    def at(self, positions: Tensor, seed: int, epoch: int) -> Tensor:
        """The examples at some positions of an epoch, (B,) int64."""
        _, starts = block_order(self, seed, epoch)
        windows = torch.searchsorted(starts, positions, right=True) - 1
        examples = torch.empty_like(positions)
        for window in windows.unique().tolist():
            inside = windows == window
            order = window_order(self, seed, epoch, window)
            examples[inside] = order[positions[inside] - starts[window]]
        return examples


Order = Shuffle | BlockShuffle
"""The order of the examples in every epoch; its length is their number."""


@lru_cache(maxsize=4)
def block_order(order: BlockShuffle, seed: int, epoch: int) -> tuple[Tensor, Tensor]:
    """The blocks of an epoch in their order, and the position at which each window begins."""
    noise = generator("blocks", seed, epoch)
    blocks = torch.randperm(len(order.counts), generator=noise)
    ends = torch.tensor(order.counts)[blocks].cumsum(0)
    starts = torch.cat([ends.new_zeros(1), ends[order.window - 1 : -1 : order.window]])
    return blocks, starts


@lru_cache(maxsize=4)
def window_order(order: BlockShuffle, seed: int, epoch: int, window: int) -> Tensor:
    """The examples of one window in their order, int64."""
    blocks, _ = block_order(order, seed, epoch)
    firsts = list(accumulate(order.counts, initial=0))
    members = blocks[window * order.window :][: order.window].tolist()
    examples = torch.cat([torch.arange(firsts[block], firsts[block + 1]) for block in members])
    noise = generator("window", seed, epoch, window)
    return examples[torch.randperm(len(examples), generator=noise)]


def batch_indices(
    order: Order, batch_size: int, seed: int, step: int, world: World = SINGLE_PROCESS
) -> Tensor:
    """The examples that this process takes at `step`, (batch_size / world.size,) int64.

    Arguments:
        order: The order of an epoch.
        batch_size: Examples per step of all processes together, a multiple of their number.
        seed: Seed of the order.
        step: Index of the training step.
        world: The processes that share the batch.
    """
    share = batch_size // world.size
    first = step * batch_size + world.rank * share
    positions = torch.arange(first, first + share)
    epochs, within = positions // len(order), positions % len(order)
    indices = torch.empty_like(positions)
    for epoch in epochs.unique().tolist():
        inside = epochs == epoch
        indices[inside] = order.at(within[inside], seed, epoch)
    return indices


def evenly_spaced(num_examples: int, limit: int) -> Tensor:
    """At most `limit` indices at even distances; a prefix would miss classes of sorted folders."""
    count = min(num_examples, limit)
    return torch.arange(count) * num_examples // max(1, count)


def inference_batch_size(side: int) -> int:
    """Images per pass without gradients, 1 to 128: as many pixels as 128 images of 64 x 64."""
    return max(1, min(128, 128 * 64 * 64 // (side * side)))
