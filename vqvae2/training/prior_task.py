"""Stage 2: a prior learns the codes of one level, given labels and coarser codes (Sec. 3.2).

Each level's prior is trained on its own, on extracted codes.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from vqvae2.data.codes import CodeDataset
from vqvae2.data.order import batch_indices
from vqvae2.distributed import World
from vqvae2.priors import Prior
from vqvae2.randomness import generator
from vqvae2.runs.config import TrainingConfig
from vqvae2.training.autoencoder_task import require_batch
from vqvae2.training.loop import Loss


class PriorLoss(nn.Module):
    """Nats per code of a prior, as one forward pass (ranks exchange gradients around it)."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, labels: Tensor, coarser: list[Tensor]) -> Tensor:
        """Mean negative log-probability a code in nats, a scalar."""
        return -self.prior.log_prob(codes, labels, coarser).mean()


class PriorTask:
    """The task of training the prior of one level.

    Dropout draws from torch's global generator, which `before_step` sets from (seed, step, rank).

    Arguments:
        prior: the prior of `level`.
        level: which of the code maps it models, 0 the coarsest.
        codes: the training split.
        config: how.
        seed: of order and noise.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        prior: Prior,
        level: int,
        codes: CodeDataset,
        config: TrainingConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.module = PriorLoss(prior)
        self.level, self.codes, self.config, self.seed = level, codes, config, seed
        self.rank, self.world = rank, world
        require_batch(len(codes), config, world)

    def indices(self, step: int) -> Tensor:
        """Which examples this rank takes at `step`, (B,)."""
        order, batch = self.codes.order, self.config.batch
        return batch_indices(order, batch, self.seed, step, World(self.rank, self.world))

    def names(self, step: int) -> list[str]:
        """Their numbers in the data set of codes."""
        return [f"number {index}" for index in self.indices(step).tolist()]

    def batch(self, step: int) -> list[tuple[list[Tensor], Tensor]]:
        """Parts of (codes (B, H, W) up to this level, labels (B,))."""
        parts = []
        for part in self.indices(step).chunk(self.config.accumulate):
            codes, labels = self.codes.batch(part)
            parts.append((codes[: self.level + 1], labels))
        return parts

    def before_step(self, step: int) -> None:
        """Makes this step's dropout a function of (seed, step, rank)."""
        # The one place that sets torch's global generator: dropout takes no other.
        key = ("dropout", self.seed, self.level, step, self.rank)
        torch.manual_seed(generator(*key).initial_seed())

    def loss(self, module: Callable[..., Any], part: Any, step: int) -> Loss:
        """Nats per code of one part."""
        codes, labels = part
        nats = module(codes[-1], labels, codes[:-1])
        return Loss(nats, {"nats_per_code": (nats.detach(), nats.new_ones(()))})

    def after_step(self, parts: list[Any], step: int) -> None:
        """Nothing to do: a prior has no codebook."""
