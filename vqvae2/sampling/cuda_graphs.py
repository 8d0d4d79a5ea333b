"""Steps recorded as CUDA graphs: one launch per step instead of one per kernel.

A step of a prior consists of several hundred small kernels, each of which the host must launch.
Steps of one phase do the same operations on the same tensors, so they are recorded once and
replayed; what differs between them (the position) is in tensors on the device.
"""

from collections.abc import Callable, Hashable

import torch


class RecordedStep:
    """An action that is recorded when its phase occurs for the second time, and then replayed.

    The first time, the action runs directly, which also makes the allocations that libraries make
    on first use. Recording runs the host's part of the action but not the device's, so a replay
    follows it.

    Arguments:
        action: reads and writes tensors in place, always the same ones.
        phase: identifies the operations of the next action; equal phases do the same operations.
        skip: does the host's part of the action only.
        device: the GPU that holds all tensors of the action.
    """

    def __init__(
        self,
        action: Callable[[], None],
        phase: Callable[[], Hashable],
        skip: Callable[[], None],
        device: torch.device,
    ) -> None:
        self.action, self.phase, self.skip, self.device = action, phase, skip, device
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        with torch.cuda.device(device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(device)

    def __call__(self) -> None:
        """Does the action."""
        with torch.cuda.device(self.device):
            self._run()

    def _run(self) -> None:
        phase = self.phase()
        if phase not in self.graphs:
            self.graphs[phase] = None
            self.action()
            return
        graph = self.graphs[phase]
        if graph is None:
            graph = self.graphs[phase] = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, for example to load images.
            with torch.cuda.graph(
                graph,
                pool=self.pool,
                stream=self.stream,
                capture_error_mode="thread_local",
            ):
                self.action()
        else:
            self.skip()
        graph.replay()
