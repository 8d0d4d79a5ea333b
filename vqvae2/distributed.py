"""Processes that work together, and the data that they exchange.

Every collective operation of the package is here. All processes run the same program and reach
every collective call.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vqvae2.transfers import HostCopy, to_device

T = TypeVar("T")

TIMEOUT_HOURS = 12
"""Some work belongs to one process alone, and the others wait for it; a lost process ends the
others through the launcher, so this may be long."""


@dataclass(frozen=True)
class World:
    """The group of processes that share a job, from the view of one of them; alone by default.

    Arguments:
        rank: index of this process.
        size: number of processes.
        device: where tensors are exchanged.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @classmethod
    def current(cls, device: str = "cpu") -> Self:
        """The processes of torch.distributed, or this one where it was not initialised."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls(device=device)
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and prints what all have in common."""
        return self.rank == 0

    def shard(self, items: Tensor) -> Tensor:
        """This process's consecutive part of items (N, ...); it may be empty."""
        return items.tensor_split(self.size)[self.rank]

    def shard_nonempty(self, items: Tensor) -> Tensor:
        """`shard`, where no process may get nothing; ValueError on all of them otherwise."""
        if len(items) < self.size:
            raise ValueError(
                f"{self.size} processes cannot share {len(items)} images; start at most "
                f"{max(1, len(items))}."
            )
        return self.shard(items)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n, ...) of all processes in their order, on the CPU; n may differ."""
        if self.size == 1:
            return rows.cpu()
        counts = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(rows)], device=self.device))
        lengths = [int(count) for count in counts]
        padded = rows.new_zeros(max(lengths), *rows.shape[1:], device=self.device)
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(parts, padded)
        return torch.cat([part[:n].cpu() for part, n in zip(parts, lengths, strict=True)])

    def gather_objects(self, items: Sequence[T]) -> list[T]:
        """The items of all processes in their order; for names and other small values."""
        if self.size == 1:
            return list(items)
        parts: list[list[T]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, list(items))
        return [item for part in parts for item in part]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.size == 1:
            return values.cpu()
        total = values.to(self.device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any process."""
        return bool(self.sum(torch.tensor(float(flag))) > 0) if self.size > 1 else flag

    def require_equal(self, numbers: Sequence[int], message: str) -> None:
        """Raises ValueError with `message`, on all processes, unless all have the same numbers."""
        if self.size > 1 and len(self.gather(torch.tensor([numbers])).unique(dim=0)) > 1:
            raise ValueError(message)

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            dist.barrier()


SINGLE_PROCESS = World()


class LateFlag:
    """A flag that any process may raise at any step, without waiting for the device.

    On several processes it is read one step late: by then the sum has arrived. On a single process
    it is read at once.

    Arguments:
        world: the processes; all of them call `any` at every step.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.pending: HostCopy | None = None

    def any(self, flag: bool) -> bool:
        """Whether the flag was raised on any process at the step before."""
        if self.world.size == 1:
            return flag
        raised = self.pending is not None and bool(self.pending.read() > 0)
        total = to_device(torch.tensor(float(flag)), self.world.device)
        dist.all_reduce(total)
        self.pending = HostCopy(total)
        return raised


def launched_world(device: str) -> World:
    """The processes that torchrun or `accelerate launch` started, or this one alone.

    Arguments:
        device: "cpu", or a kind of accelerator, of which each process on a machine takes one.
    """
    if num_launched() == 1:
        return World(device=device)
    from accelerate import PartialState

    state = PartialState(cpu=device == "cpu", timeout=timedelta(hours=TIMEOUT_HOURS))
    return World(state.process_index, state.num_processes, str(state.device))


def num_launched() -> int:
    """Number of processes that the launcher announces in the environment; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def all_reduce_(tensor: Tensor) -> None:
    """Replaces a tensor by its sum over all processes, in place; nothing on a single one."""
    if World.current().size > 1:
        dist.all_reduce(tensor)


def broadcast_(tensor: Tensor) -> None:
    """Replaces a tensor by that of the main process, in place; nothing on a single one."""
    if World.current().size > 1:
        dist.broadcast(tensor, 0)
