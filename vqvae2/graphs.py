"""Steps recorded as CUDA graphs: launched once as a whole instead of kernel by kernel.

A step of a prior is some hundred small kernels, and a GPU waits for the host to launch each.
Steps of one phase do the same operations on the same tensors, so they are recorded once and
replayed; what differs between them (the position) lies in tensors on the device.
"""

from collections.abc import Callable, Hashable

import torch


class Recorded:
    """An action that is recorded the second time that a phase comes, and replayed from then on.

    The first time it runs as it is, which also sets up what libraries allocate on first use.
    Recording runs the host's part of the action but none of the device's, so a replay follows.

    Arguments:
        action: what to do; reads and writes tensors in place, always the same ones.
        phase: what the next action is made of; equal phases, equal operations.
        skip: does the host's part of the action alone.
    """

    def __init__(
        self, action: Callable[[], None], phase: Callable[[], Hashable], skip: Callable[[], None]
    ) -> None:
        self.action, self.phase, self.skip = action, phase, skip
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self) -> None:
        """Does the action."""
        phase = self.phase()
        if phase not in self.graphs:
            self.graphs[phase] = None
            self.action()
            return
        graph = self.graphs[phase]
        if graph is None:
            graph = self.graphs[phase] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self.pool):
                self.action()
        else:
            self.skip()
        graph.replay()
