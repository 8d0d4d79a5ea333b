"""Steps recorded as CUDA graphs: one launch per step instead of one per kernel.

A step of a prior consists of several hundred small kernels, each of which the host must launch.
Steps of one phase do the same operations on the same tensors, so they are recorded once and
replayed; what differs between them (the position) is in tensors on the device.
"""

from collections.abc import Callable, Hashable

import torch

from vqvae2.priors.prior import Prior, PriorCache


class RecordedStep:
    """An action that is recorded when its phase occurs for the second time, and then replayed.

    The first time, the action runs directly, which also makes the allocations that libraries make
    on first use. Recording runs the host's part of the action but not the device's, so a replay
    follows it.

    Arguments:
        action: a step of the prior, which reads and writes tensors in place, always the same ones.
        prior: names the phase of the next step, and does the host's part of a step alone.
        cache: of the prior.
    """

    def __init__(self, action: Callable[[], None], prior: Prior, cache: PriorCache) -> None:
        self.action, self.prior, self.cache = action, prior, cache
        self.graphs: dict[Hashable, torch.cuda.CUDAGraph | None] = {}
        with torch.cuda.device(prior.device):
            self.pool = torch.cuda.graph_pool_handle()
            self.stream = torch.cuda.Stream(prior.device)

    def __call__(self) -> None:
        """Does the action."""
        phase = self.prior.phase(self.cache)
        with torch.cuda.device(self.cache.context.device):
            if phase not in self.graphs:
                self.graphs[phase] = None
                self.action()
                return
            graph = self.graphs[phase]
            if graph is None:
                graph = self.graphs[phase] = self._record()
            else:
                self.prior.skip(self.cache)
            graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile, for example to load images.
        with torch.cuda.graph(
            graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
        ):
            self.action()
        return graph
