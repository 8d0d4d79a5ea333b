"""Steps recorded as CUDA graphs: one launch per step instead of one per kernel.

A step of a prior consists of several hundred small kernels, each of which the host must launch.
Steps of one phase do the same operations on the same tensors, so they are recorded once and
replayed; what differs between them (the position) is in tensors on the device. Batches of one size
use the same tensors again, so that a prior is recorded once, not once per batch.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn


class Recordable(Protocol):
    """A sequence of actions that read and write the same tensors in place."""

    counters: tuple[int, ...]
    """What the host counts; an action advances it."""

    def step(self) -> None:
        """Does the next action."""
        ...

    def phase(self) -> Hashable:
        """Identifies the operations of the next action; equal phases do the same operations."""
        ...

    def skip(self) -> None:
        """Does the host's part of the next action only."""
        ...


R = TypeVar("R", bound=Recordable)


class RecordedSteps(Generic[R]):
    """Actions that are recorded when their phase occurs for the second time, and then replayed.

    The first time, the action runs directly, which also makes the allocations that libraries make
    on first use. Recording runs the host's part of the action but not the device's, so a replay
    follows it. If recording fails, all actions run directly from then on.

    Arguments:
        actions: does the actions.
        device: the GPU that holds all tensors of the actions.
    """

    def __init__(self, actions: R, device: torch.device) -> None:
        self.actions, self.device = actions, device
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self.fails = False

    def step(self) -> None:
        """Does the next action."""
        with torch.cuda.device(self.device):
            self._run()

    def _run(self) -> None:
        phase = self.actions.phase()
        if self.fails or phase not in self.graphs:
            self.graphs.setdefault(phase, None)
            self.actions.step()
            return
        graph = self.graphs[phase]
        if graph is not None:
            self.actions.skip()
            graph.replay()
            return
        before = self.actions.counters
        try:
            graph = self.graphs[phase] = self._record()
        except RuntimeError as error:
            self.fails = True
            warn_once(f"{type(error).__name__}: {error}".splitlines()[0])
            self.actions.counters = before
            self.actions.step()
            return
        graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        stream, pool = stream_and_pool(self.device)
        # Other threads may use the device meanwhile, for example to load images.
        options = {"pool": pool, "stream": stream, "capture_error_mode": "thread_local"}
        with autocast_without_cache(), torch.cuda.graph(graph, **options):
            self.actions.step()
        return graph


@contextlib.contextmanager
def autocast_without_cache() -> Iterator[None]:
    """Makes autocast cast weights at each use: its copies do not outlive it, but graphs do."""
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


@functools.lru_cache
def stream_and_pool(device: torch.device) -> tuple[torch.cuda.Stream, Any]:
    """The stream on which all graphs of a GPU are recorded, and the memory that they share.

    A graph leaves nothing in that memory that a later one reads, so they may overwrite it.
    """
    return torch.cuda.Stream(device), torch.cuda.graph_pool_handle()


@functools.lru_cache
def warn_once(reason: str) -> None:
    """Warns about a failed recording, once per reason."""
    warnings.warn(
        f"Sampling steps cannot be recorded as CUDA graphs and run one kernel at a time, which is "
        f"slower ({reason}).",
        RuntimeWarning,
        stacklevel=2,
    )


class RecordingPool(Generic[R]):
    """Recordings that are not in use, by the module whose steps they are.

    They must not refer to the module, which would then live as long as its recordings.
    """

    def __init__(self) -> None:
        self.idle: WeakKeyDictionary[nn.Module, dict[Hashable, RecordedSteps[R]]]
        self.idle = WeakKeyDictionary()

    def take(
        self, module: nn.Module, key: Hashable, new: Callable[[], R]
    ) -> tuple[Hashable, RecordedSteps[R], bool]:
        """A recording for the caller alone, and whether it was used before.

        Arguments:
            module: whose steps they are.
            key: what they depend on besides the module's tensors and the precision.
            new: makes the actions if no recording is idle.
        """
        device = next(module.parameters()).device
        full_key = key, state_of(module)
        recording = self.idle.setdefault(module, {}).pop(full_key, None)
        if recording is not None:
            return full_key, recording, True
        return full_key, RecordedSteps(new(), device), False

    def give_back(self, module: nn.Module, key: Hashable, recording: RecordedSteps[R]) -> None:
        """Keeps a recording for the next batch, in place of those of other states."""
        idle = self.idle.setdefault(module, {})
        while len(idle) >= MAX_IDLE:
            del idle[next(iter(idle))]
        idle[key] = recording


MAX_IDLE = 2
"""Recordings kept per module: those of a full batch and of the last, smaller one."""


def state_of(module: nn.Module) -> Hashable:
    """What a recording depends on: where the tensors of a module are, and the precision."""
    places = tuple(tensor.data_ptr() for tensor in module.state_dict(keep_vars=True).values())
    autocast = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
    return places, autocast, torch.backends.cuda.matmul.allow_tf32
