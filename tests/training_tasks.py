"""Small tasks on numbers."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from small_runs import TRAIN
from torch import Tensor, nn

from vqvae2.training.loop import Loss, Phase


class RegressionTask:
    """A network on numbers; its loss times `factor` overflows in float16 with the first scales."""

    def __init__(self, factor: float = 30.0, accumulate: int = 1, **changes: object) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.training = replace(TRAIN, accumulate=accumulate, **changes)
        self.factor, self.outputs = factor, []
        self.phases = [Phase("network", self.network, self.loss, self.training)]

    def batch(self, step: int) -> list[Tensor]:
        noise = torch.Generator().manual_seed(step)
        return list(torch.randn(8, 4, generator=noise).chunk(self.training.accumulate))

    def loss(self, module: nn.Module, part: Tensor, step: int) -> Loss[int]:
        value = self.factor * (module(part).float() - part[:, :2]).square().mean()
        return Loss(value, {"error": (value.detach(), torch.ones(()))}, step)

    def before_step(self, step: int) -> None: ...

    def after_step(self, outputs: Sequence[int], step: int) -> None:
        self.outputs += outputs

    def example_names(self, step: int) -> list[str]:
        return []
