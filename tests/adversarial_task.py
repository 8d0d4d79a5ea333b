"""A task with two phases, on numbers."""

from collections.abc import Sequence

import torch
from small_runs import TRAIN
from torch import Tensor, nn

from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.training.loop import Loss, Phase


class AdversarialTask:
    """A generator against a discriminator, on numbers that are functions of the step."""

    def __init__(self, world: World = SINGLE_PROCESS) -> None:
        torch.manual_seed(0)
        self.training, self.world = TRAIN, world
        self.generator, self.discriminator = nn.Linear(3, 4), nn.Linear(4, 1)
        self.calls: list[tuple[str, int]] = []
        self.phases = [
            Phase("generator", self.generator, self.generator_loss, TRAIN),
            Phase("discriminator", self.discriminator, self.discriminator_loss, TRAIN, False),
        ]

    def batch(self, step: int) -> list[tuple[Tensor, Tensor]]:
        noise = torch.Generator().manual_seed(step)
        codes, images = (torch.randn(8, n, generator=noise) for n in (3, 4))
        return [(self.world.shard(codes), self.world.shard(images))]

    def before_step(self, step: int) -> None:
        self.calls.append(("before", step))

    def generator_loss(self, module: nn.Module, part: Sequence[Tensor], step: int) -> Loss[str]:
        value = nn.functional.softplus(-self.discriminator(module(part[0]))).mean()
        return Loss(value, {"generator": (value.detach(), torch.ones(()))}, f"output {step}")

    def discriminator_loss(
        self, module: nn.Module, part: Sequence[Tensor], step: int
    ) -> Loss[str]:
        real = nn.functional.softplus(-module(part[1])).mean()
        fake = nn.functional.softplus(module(self.generator(part[0]).detach())).mean()
        value = real + fake
        return Loss(value, {"discriminator": (value.detach(), torch.ones(()))}, "unused")

    def after_step(self, outputs: list[str], step: int) -> None:
        self.calls.append((outputs[0], step))

    def example_names(self, step: int) -> list[str]:
        return []
