"""Stage 1: the autoencoder learns to draw images from its codes (VQ-VAE-2, Sec. 3.1).

Three things keep every level's codes at work, where the plain form lets them starve: some steps
without quantisation before the codes start from data, revival of dead codes, and level dropout.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from vqvae2.autoencoder.codebook import Quantized
from vqvae2.autoencoder.vqvae import VQVAE, Reconstruction
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import batch_indices
from vqvae2.distributed import World
from vqvae2.imaging.convert import to_float
from vqvae2.randomness import generator
from vqvae2.runs.config import AutoencoderConfig, TrainingConfig
from vqvae2.training.loop import Loss


class AutoencoderTask:
    """The task of training `module` on `images`.

    Arguments:
        module: the autoencoder.
        images: the training split.
        config: how.
        seed: of order and noise.
        rank, world: this process and how many there are.
    """

    def __init__(
        self,
        module: VQVAE,
        dataset: ImageDataset,
        config: AutoencoderConfig,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.module, self.dataset, self.stage, self.seed = module, dataset, config, seed
        self.config: TrainingConfig = config.train
        self.rank, self.world = rank, world
        require_batch(len(dataset), self.config, world)

    def indices(self, step: int) -> Tensor:
        """Which images this rank takes at `step`, (B,)."""
        order, batch = self.dataset.order, self.config.batch
        return batch_indices(order, batch, self.seed, step, World(self.rank, self.world))

    def names(self, step: int) -> list[str]:
        """What those images are called."""
        return [self.dataset.name(index) for index in self.indices(step).tolist()]

    def batch(self, step: int) -> list[tuple[Tensor, Tensor]]:
        """Parts of (images (B, 3, S, S) uint8, levels kept (B, levels) bool)."""
        config, indices = self.config, self.indices(step)
        keep = self.kept_levels(step).chunk(self.world)[self.rank]
        images = self.dataset.batch(indices)
        if ahead := self.dataset.prefetch_steps(config.batch):
            # After the batch: blocks in use are let go last.
            self.dataset.prefetch(self.indices(step + ahead))
        return list(
            zip(images.chunk(config.accumulate), keep.chunk(config.accumulate), strict=True)
        )

    def kept_levels(self, step: int) -> Tensor:
        """Which levels the decoder sees of each image of the joint batch, (B, levels) bool.

        A dropped image keeps its 1 to L - 1 coarsest levels, each count as likely.
        """
        batch, levels = self.config.batch, self.module.config.num_levels
        if levels == 1 or not self.stage.level_dropout:
            return torch.ones(batch, levels, dtype=torch.bool)
        noise = generator("levels", self.seed, step)
        # An exact count a batch, not a coin a image: less noise in the loss.
        dropped = torch.rand(batch, generator=noise).argsort() < round(
            self.stage.level_dropout * batch
        )
        counts = torch.randint(1, levels, (batch,), generator=noise)
        kept = torch.where(dropped, counts, levels)
        return torch.arange(levels) < kept[:, None]

    def before_step(self, step: int) -> None:
        """Starts the codes from data at the step where quantisation begins."""
        if step == self.stage.continuous_steps:
            device = next(self.module.parameters()).device
            images = to_float(self.start_images().to(device))
            self.module.start_codebooks(images, generator("start", self.seed))

    def start_images(self) -> Tensor:
        """The images that the codes start from, uint8; the same on all ranks."""
        grids = self.module.config.grids(self.dataset.size, self.dataset.size)
        vectors = self.stage.start_vectors_a_code
        wanted = max(vectors * grid.num_codes // grid.num_positions for grid in grids)
        count = min(len(self.dataset), max(self.config.batch, wanted), 1024)
        noise = generator("start pictures", self.seed)
        return self.dataset.batch(torch.randperm(len(self.dataset), generator=noise)[:count])

    def loss(self, module: Callable[..., Any], part: Any, step: int) -> Loss:
        """Error and commitment of one part."""
        images, keep = part
        images = to_float(images)
        quantize = step >= self.stage.continuous_steps
        result: Reconstruction = module(images, keep=keep, quantize=quantize)
        whole = keep.all(dim=1)
        squared = (result.images.detach().float() - images).square().mean(dim=(1, 2, 3))
        figures = {"mse": ((squared * whole).sum(), whole.sum())}
        one = squared.new_ones(())
        for level, quantized in enumerate(result.levels):
            figures[f"commitment.{level}"] = (quantized.commitment.detach(), one)
        return Loss(result.loss, figures, result.levels if quantize else None)

    def after_step(self, parts: list[Any], step: int) -> None:
        """Moves the codebooks to what the step saw."""
        if parts[0] is None:
            return
        levels = [join(level) for level in zip(*parts, strict=True)]
        self.module.update_codebooks(levels, generator("revival", self.seed, step))


def join(parts: tuple[Quantized, ...]) -> Quantized:
    """What a codebook made of the parts of a batch, as of one batch."""
    if len(parts) == 1:
        return parts[0]
    return Quantized(
        torch.cat([part.vectors for part in parts]),
        torch.cat([part.codes for part in parts]),
        torch.stack([part.commitment for part in parts]).mean(),
        torch.stack([part.codebook_loss for part in parts]).mean(),
        torch.cat([part.inputs for part in parts]),
    )


def require_batch(num_examples: int, config: TrainingConfig, world: int) -> None:
    """Raises ValueError unless examples and batch allow a step."""
    if num_examples < config.batch:
        raise ValueError(
            f"Training needs at least a batch of {config.batch} images, got {num_examples}; "
            f"add images or choose a smaller batch, at most {num_examples}."
        )
    if config.batch % (world * config.accumulate):
        raise ValueError(
            f"A batch of {config.batch} does not divide into {world} processes with "
            f"{config.accumulate} parts each; use a multiple of {world * config.accumulate}."
        )
