"""Copies between the host and a device that let neither wait for the other.

A copy to a GPU is asynchronous only from pinned memory: from other memory the host waits until the
GPU has finished everything before it. A copy to the host is complete only after an event.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, cast

import torch
from torch import Tensor

T = TypeVar("T")


def pin(value: T) -> T:
    """The tensors in a tensor, tuple or list, in memory that a GPU can read by itself."""
    pinned: object
    if isinstance(value, Tensor):
        pinned = value.pin_memory()
    else:
        assert isinstance(value, tuple | list), type(value)
        pinned = type(value)(pin(item) for item in value)
    return cast(T, pinned)


def to_device(value: T, device: torch.device | str) -> T:
    """Moves a tensor, or the tensors in a tuple or list, without waiting for the device."""
    moved: object
    if isinstance(value, Tensor):
        needs_pin = torch.device(device).type == "cuda" and not value.is_cuda
        source = value.pin_memory() if needs_pin and not value.is_pinned() else value
        moved = source.to(device, non_blocking=True)
    else:
        assert isinstance(value, tuple | list), type(value)
        moved = type(value)(to_device(item, device) for item in value)
    return cast(T, moved)


def arrivals(batches: Iterable[Sequence[Tensor]]) -> Iterator[list[Tensor]]:
    """The tensors of each batch on the CPU, read when the device has the work of the next one."""
    pending: list[HostCopy] = []
    for batch in batches:
        copies = [HostCopy(tensor) for tensor in batch]
        if pending:
            yield [copy.read() for copy in pending]
        pending = copies
    if pending:
        yield [copy.read() for copy in pending]


class HostCopy:
    """A tensor on its way to the host; reading it waits for what came before it alone."""

    def __init__(self, tensor: Tensor) -> None:
        self.copy = tensor.to("cpu", non_blocking=tensor.is_cuda)
        self.arrival: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self.arrival = torch.cuda.Event()
            self.arrival.record()

    def read(self) -> Tensor:
        """The tensor on the CPU."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return self.copy
