"""Stage 1: the autoencoder learns to reconstruct images from their codes (VQ-VAE-2, Sec. 3.1).

Three measures prevent codebook collapse: some steps without quantisation before the codebooks
start from data, restarts of dead codes, and level dropout.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vqvae2.autoencoder.codebook import Quantized
from vqvae2.autoencoder.perturbation import NUM_NEIGHBOURS
from vqvae2.autoencoder.vqvae import VQVAE, Reconstruction, VQVAEConfig
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import evenly_spaced, inference_batch_size
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.imaging.convert import to_float
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES, preview_levels
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.randomness import generator, seeded_weights
from vqvae2.runs.config import AutoencoderStageConfig, RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.fit import StageTraining, fit
from vqvae2.training.image_batches import ImageBatches
from vqvae2.training.loop import Loss, Phase
from vqvae2.training.session import Event, TrainingSession, require_batch
from vqvae2.training.stage import SHARED_FIELDS, Stage, is_saved
from vqvae2.weights import save_autoencoder

if TYPE_CHECKING:
    from PIL.Image import Image

Part = tuple[Tensor, Tensor, tuple[Tensor, ...]]
"""Images (B, 3, S, S) uint8, the levels that the decoder gets of each, (B, levels) bool, and the
`neighbours` of `VQVAE.forward`, () without perturbation."""

Output = list[Quantized] | None
"""What the codebooks returned, coarsest first; None without quantisation."""

MAX_START_IMAGES = 1024


class AutoencoderTask:
    """Training of an autoencoder on images.

    Arguments:
        model: the autoencoder.
        dataset: the training images.
        config: the stage.
        seed: of the order of images and of all noise.
        world: the processes that train together.
    """

    def __init__(
        self,
        model: VQVAE,
        dataset: ImageDataset,
        config: AutoencoderStageConfig,
        seed: int,
        world: World = SINGLE_PROCESS,
    ) -> None:
        assert config.training is not None, "pixels are not trained"
        self.model, self.dataset, self.config, self.seed = model, dataset, config, seed
        self.training: TrainingConfig = config.training
        self.phases = [Phase("autoencoder", model, self.loss, self.training)]
        self.batches = ImageBatches(dataset, self.training.batch, seed, world)
        require_batch(len(dataset), self.training, world)

    def example_names(self, step: int) -> list[str]:
        """The names of this process's images at `step`."""
        return self.batches.names(step)

    def batch(self, step: int) -> list[Part]:
        """The images of `step` in parts, each image with what the decoder gets of it."""
        training = self.training
        share = self.batches.share
        keep, images = share(self.visible_levels(step)), self.batches.images(step)
        if self.config.mirror:
            mirrored = share(self.chosen(0.5, step, "mirror"))
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        neighbours = [share(level) for level in self.neighbours(step)]
        parts = [tensor.chunk(training.accumulate) for tensor in (images, keep, *neighbours)]
        return [(images, keep, tuple(rest)) for images, keep, *rest in zip(*parts, strict=True)]

    def chosen(self, fraction: float, step: int, purpose: str) -> Tensor:
        """Random images of the joint batch, (B,) bool: an exact number of them.

        Not a coin per image: less noise in the loss.
        """
        batch, noise = self.training.batch, generator(purpose, self.seed, step)
        return torch.rand(batch, generator=noise).argsort() < round(fraction * batch)

    def visible_levels(self, step: int) -> Tensor:
        """The levels that the decoder gets of each image of the joint batch, (B, levels) bool.

        An image with hidden levels keeps its 1 to L - 1 coarsest, each number equally likely.
        """
        batch, levels = self.training.batch, self.model.config.num_levels
        if levels == 1 or not self.config.level_dropout:
            return torch.ones(batch, levels, dtype=torch.bool)
        noise = generator("levels", self.seed, step)
        number = round(self.config.level_dropout * batch)
        dropped = torch.rand(batch, generator=noise).argsort() < number
        counts = torch.randint(1, levels, (batch,), generator=noise)
        visible = torch.where(dropped, counts, levels)
        return torch.arange(levels) < visible[:, None]

    def neighbours(self, step: int) -> list[Tensor]:
        """The `neighbours` of `VQVAE.forward` for the joint batch; [] without perturbation."""
        if not self.config.perturbation:
            return []
        fraction = self.config.perturbation * (1 - 0.5 * step / self.training.steps)
        perturbed = self.chosen(fraction, step, "perturbed")[:, None, None]
        noise = generator("neighbours", self.seed, step)
        shapes = [grid.shape for grid in self.model.config.grids(*[self.dataset.size] * 2)]
        numbers = [
            torch.randint(1 + NUM_NEIGHBOURS, (self.training.batch, *shape), generator=noise)
            for shape in shapes
        ]
        return [level * perturbed for level in numbers]

    def before_step(self, step: int) -> None:
        """Starts the codebooks from data at the step where quantisation begins."""
        if step == self.config.continuous_steps:
            images, noise = to_float(self.start_images()), generator("start", self.seed)
            batch_size = inference_batch_size(self.dataset.size)
            self.model.start_codebooks(images, noise, batch_size)

    def start_images(self) -> Tensor:
        """The images that the codebooks start from, uint8; the same on all processes."""
        grids = self.model.config.grids(self.dataset.size, self.dataset.size)
        per_code = self.config.start_vectors_per_code
        wanted = max(per_code * grid.num_codes // grid.num_positions for grid in grids)
        count = min(len(self.dataset), max(self.training.batch, wanted), MAX_START_IMAGES)
        noise = generator("start pictures", self.seed)
        return self.dataset.batch(torch.randperm(len(self.dataset), generator=noise)[:count])

    def loss(self, module: nn.Module, part: Part, step: int) -> Loss[Output]:
        """Reconstruction error and commitment of one part."""
        images, keep, neighbours = part
        images = to_float(images)
        quantize = step >= self.config.continuous_steps
        result: Reconstruction = module(
            images, keep=keep, quantize=quantize, neighbours=neighbours
        )
        complete = keep.all(dim=1)
        squared = (result.images.detach().float() - images).square().mean(dim=(1, 2, 3))
        metrics = {"mse": ((squared * complete).sum(), complete.sum())}
        one = squared.new_ones(())
        for level, quantized in enumerate(result.levels):
            metrics[f"commitment.{level}"] = quantized.commitment.detach(), one
        return Loss(result.loss, metrics, result.levels if quantize else None)

    def after_step(self, outputs: list[Output], step: int) -> None:
        """Updates the codebooks with what they returned in this step."""
        parts = [levels for levels in outputs if levels is not None]
        if parts:
            levels = [joined(level) for level in zip(*parts, strict=True)]
            self.model.update_codebooks(levels, generator("revival", self.seed, step))


def joined(parts: Sequence[Quantized]) -> Quantized:
    """The results of a codebook for the parts of a batch, as of one batch."""
    if len(parts) == 1:
        return parts[0]
    return Quantized(
        torch.cat([part.vectors for part in parts]),
        torch.cat([part.codes for part in parts]),
        torch.stack([part.commitment for part in parts]).mean(),
        torch.stack([part.codebook_loss for part in parts]).mean(),
        torch.cat([part.inputs for part in parts]),
    )


@dataclass(frozen=True)
class AutoencoderStage(Stage):
    """Trains the autoencoder and writes it to `model/autoencoder`."""

    config: AutoencoderStageConfig
    name = "autoencoder"
    group = "autoencoder"
    title = "autoencoder"
    depends_on = SHARED_FIELDS

    @property
    def training(self) -> TrainingConfig | None:
        """How the autoencoder is trained."""
        return self.config.training

    def done(self, folder: RunFolder) -> bool:
        """Whether the trained autoencoder is written."""
        return is_saved(folder.autoencoder)

    def run(self, session: TrainingSession) -> Iterator[Event]:
        """Trains and writes the autoencoder, unless it is there."""
        if self.done(session.folder):
            return
        model = new_model(session.config).to(session.device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task = AutoencoderTask(
            model, session.splits.train, self.config, session.config.seed, session.world
        )
        validation = session.splits.validation

        def validate(module: nn.Module) -> dict[str, float]:
            assert isinstance(module, VQVAE)
            indices = evenly_spaced(len(validation), task.training.validation_examples)
            batches = validation.batches(session.world.shard(indices), session.device)
            return measure_distortion(module, batches, session.world).flat()

        def preview(module: nn.Module) -> "Image":
            assert isinstance(module, VQVAE)
            indices = evenly_spaced(len(validation), NUM_PREVIEW_IMAGES)
            images = torch.cat(list(validation.batches(indices, session.device)))
            return preview_levels(module, images)

        job: StageTraining[Part, Output] = StageTraining(self.name, task, validate, "mse", preview)
        yield from fit(session, job)
        if session.world.is_main:
            save_autoencoder(session.folder.autoencoder, model)
        session.world.barrier()


def new_model(config: RunConfig) -> VQVAE:
    """The untrained autoencoder of a run; its first weights are a function of the seed."""
    assert isinstance(config.autoencoder.model, VQVAEConfig)
    with seeded_weights(config.seed, "autoencoder"):
        return VQVAE(config.autoencoder.model)
