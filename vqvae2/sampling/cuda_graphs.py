"""Steps recorded as CUDA graphs: launched once as a whole instead of kernel by kernel.

A step of a prior is some hundred small kernels, and a GPU waits for the host to launch each.
Steps of one phase do the same operations on the same tensors, so they are recorded once and
replayed; what differs between them (the position) lies in tensors on the device.
"""

from collections.abc import Callable, Hashable

import torch


class RecordedStep:
    """An action that is recorded the second time that a phase comes, and replayed from then on.

    The first time it runs as it is, which also sets up what libraries allocate on first use.
    Recording runs the host's part of the action but none of the device's, so a replay follows.

    Arguments:
        action: what to do; reads and writes tensors in place, always the same ones.
        phase: what the next action is made of; equal phases, equal operations.
        skip: does the host's part of the action alone.
        device: a GPU; all tensors of the action are there.
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
            self._do()

    def _do(self) -> None:
        phase = self.phase()
        if phase not in self.graphs:
            self.graphs[phase] = None
            self.action()
            return
        graph = self.graphs[phase]
        if graph is None:
            graph = self.graphs[phase] = torch.cuda.CUDAGraph()
            # Other threads may use the device meanwhile, as a loader of images does.
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
