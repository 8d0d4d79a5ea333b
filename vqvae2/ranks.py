"""Processes that share work: each does its part, and all learn what was found.

Training has its own exchange of gradients and of codes; this is for what is measured and drawn.
Every rank runs the same program and comes to every `join` and `sum`.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

PATIENCE = 12
"""Hours that ranks wait for one: some work is one rank's alone, and a lost rank ends the others
through whoever started them."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that share work; alone by default.

    Arguments:
        rank: which it is.
        world: how many there are.
        device: on which they exchange tensors.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and prints what all have in common."""
        return self.rank == 0

    def part(self, items: Tensor) -> Tensor:
        """This rank's part of some items (N, ...), neighbours together; there may be none."""
        return items.tensor_split(self.world)[self.rank]

    def share(self, items: Tensor) -> Tensor:
        """`part`, of which no rank has none; else a ValueError, on all of them."""
        if len(items) < self.world:
            raise ValueError(
                f"{self.world} processes cannot share {len(items)} pictures; start at most "
                f"{max(1, len(items))}."
            )
        return self.part(items)

    def join(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all ranks in their order, on the CPU; n may differ."""
        if self.world == 1:
            return rows.cpu()
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=self.device))
        lengths = [int(count) for count in counts]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:], device=self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n].cpu() for part, n in zip(parts, lengths, strict=True)])

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, on the CPU."""
        if self.world == 1:
            return values.cpu()
        whole = values.to(self.device, copy=True)
        dist.all_reduce(whole)
        return whole.cpu()

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()


ALONE = Ranks()


def started_ranks(device: str) -> Ranks:
    """The processes that torchrun or `accelerate launch` has started, or this one alone.

    Arguments:
        device: "cpu", or a kind of accelerator, of which each process on a machine takes its own.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return ALONE
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=timedelta(hours=PATIENCE))
    return Ranks(state.process_index, state.num_processes, str(state.device))
