"""The decoder stage: a second decoder learns sharp images of fixed codes.

Squared error, a perceptual distance and the logits of a discriminator (VQGAN, arXiv 2012.09841)
train it on what the frozen autoencoder makes of the training images. The discriminator joins after
the decoder has learnt the means, and first learns alone for some steps: a sudden adversarial term
would break what is there. Not in the paper of VQ-VAE-2, whose decoder minimises the squared error.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.autoencoder.discriminator import (
    Discriminator,
    augment,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
)
from vqvae2.autoencoder.perceptual import PerceptualDistance
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.imaging.convert import to_float
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES, preview_decoders
from vqvae2.metrics.sharpness import MeanSharpness
from vqvae2.precision import exact, exactly, without_autocast
from vqvae2.randomness import generator, seeded_weights
from vqvae2.runs.decoder import DecoderStageConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.fit import StageTraining, fit
from vqvae2.training.image_batches import ImageBatches
from vqvae2.training.loop import Loss, Phase
from vqvae2.training.perceptual_networks import digest_of, perceptual_network
from vqvae2.training.session import Event, TrainingSession, require_batch
from vqvae2.training.stage import SHARED_FIELDS, Stage, is_saved, require_autoencoder
from vqvae2.transfers import to_device
from vqvae2.weights import code_fingerprint, load_autoencoder, load_decoder, save_decoder

if TYPE_CHECKING:
    from PIL.Image import Image

M = TypeVar("M", bound=nn.Module)

Part = tuple[Tensor, Tensor]
"""Images (B, 3, S, S) uint8, and the noise of their augmentation, (B, 5)."""


@dataclass(frozen=True)
class DecoderModels:
    """The networks of the stage.

    Arguments:
        autoencoder: frozen; makes the codes.
        decoder: is trained.
        discriminator: is trained against it.
        perceptual: frozen; None without a perceptual loss.
    """

    autoencoder: VQVAE
    decoder: SharpDecoder
    discriminator: Discriminator
    perceptual: PerceptualDistance | None = None


class DecoderTask:
    """Training of a sharp decoder, then of its discriminator, in every step.

    Arguments:
        models: the networks.
        dataset: the training images.
        config: the stage.
        seed: of the order of images and of all noise.
        world: the processes that train together.
    """

    def __init__(
        self,
        models: DecoderModels,
        dataset: ImageDataset,
        config: DecoderStageConfig,
        seed: int,
        world: World = SINGLE_PROCESS,
    ) -> None:
        self.models, self.config, self.seed = models, config, seed
        models.autoencoder.requires_grad_(False).eval()
        self.training: TrainingConfig = config.training
        discriminator_training = replace(
            config.training,
            optimizer="adam",
            learning_rate=config.discriminator_learning_rate,
            weight_decay=0.0,
            beta1=0.0,
            beta2=0.99,
            compile=False,  # its gradient penalty differentiates twice
            recompute=False,
        )
        self.phases = [
            Phase("decoder", models.decoder, self.decoder_loss, config.training),
            Phase(
                "discriminator",
                models.discriminator,
                self.discriminator_loss,
                discriminator_training,
                averaged=False,
                start=config.discriminator_step,
            ),
        ]
        self.decoded: deque[Tensor] = deque()
        """Decoded images of this step's parts, from the first phase to the second."""
        self.batches = ImageBatches(dataset, self.training.batch, seed, world)
        require_batch(len(dataset), self.training, world)

    def example_names(self, step: int) -> list[str]:
        """The names of this process's images at `step`."""
        return self.batches.names(step)

    def batch(self, step: int) -> list[Part]:
        """The images of `step` in parts, half of them mirrored if configured, with noise."""
        training = self.training
        images = self.batches.images(step)
        joint = torch.rand(training.batch, 6, generator=generator("decoder", self.seed, step))
        noise = self.batches.share(joint)
        if self.config.mirror:
            mirrored = (noise[:, 5] < 0.5)[:, None, None, None]
            images = torch.where(mirrored, images.flip(3), images)
        parts = images.chunk(training.accumulate), noise[:, :5].chunk(training.accumulate)
        return list(zip(*parts, strict=True))

    def before_step(self, step: int) -> None:
        """Drops what a skipped step has left."""
        self.decoded.clear()

    def after_step(self, outputs: list[None], step: int) -> None:
        """Nothing: the codebooks are frozen."""

    def decoder_loss(self, module: nn.Module, part: Part, step: int) -> Loss[None]:
        """How far decoded images are from the originals, and from being classified as real."""
        images, noise = part
        images = to_float(images)
        decoded: Tensor = module(code_vectors(self.models.autoencoder, images))
        squared = F.mse_loss(decoded, images)
        std = self.models.autoencoder.config.pixel_std
        value = self.config.squared_error_weight * squared / std**2
        metrics = {"mse": squared}
        if self.models.perceptual is not None:
            distance = self.models.perceptual(images, decoded).mean()
            value = value + self.config.perceptual_weight * distance
            metrics["perceptual"] = distance
        if step >= self.config.adversarial_step:
            adversarial, matching = self.adversarial_losses(images, decoded, noise)
            value = value + self.config.adversarial_weight * adversarial
            value = value + self.config.feature_weight * matching
            metrics |= {"adversarial": adversarial, "feature_matching": matching}
        if step >= self.config.discriminator_step:
            self.decoded.append(decoded.detach())
        return Loss(value, counted_once(metrics), None)

    def adversarial_losses(
        self, images: Tensor, decoded: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The adversarial loss and the feature distance of pairs of images, scalars."""
        discriminator = self.models.discriminator.requires_grad_(False)
        with torch.no_grad():
            real = discriminator(augment(images, noise))
        outputs = discriminator(augment(decoded, noise))
        return generator_loss(outputs.logits), feature_distance(real.features, outputs.features)

    def discriminator_loss(self, module: nn.Module, part: Part, step: int) -> Loss[None]:
        """How wrong the discriminator is, with its gradient penalty at every n-th step."""
        self.models.discriminator.requires_grad_(True)
        images, noise = part
        images, decoded = to_float(images), self.decoded.popleft()
        real = augment(images, noise).requires_grad_()
        outputs = module(torch.cat([real, augment(decoded.to(real.dtype), noise)]))
        halves = [scale.chunk(2) for scale in outputs.logits]
        real_logits = [one for one, _ in halves]
        value = discriminator_loss(real_logits, [other for _, other in halves])
        metrics = {"discriminator": value}
        if step % self.config.penalty_every == 0:
            penalty = gradient_penalty(real, real_logits)
            value = value + self.config.penalty_weight * self.config.penalty_every * penalty
        return Loss(value, counted_once(metrics), None)


def code_vectors(autoencoder: VQVAE, images: Tensor) -> list[Tensor]:
    """The vectors of the codes of images (B, C, S, S) in [0, 1], which depend on no precision."""
    with torch.no_grad(), without_autocast(images), exactly(images.device):
        return autoencoder.embed(autoencoder.encode(images))


def counted_once(metrics: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Metrics as sums and counts."""
    return {name: (value.detach(), value.new_ones(())) for name, value in metrics.items()}


@dataclass(frozen=True)
class DecoderStage(Stage):
    """Trains the sharp decoder and writes it to `model/decoder`.

    Arguments:
        config: of the stage.
        steps_before: optimizer steps of the stages before it.
    """

    config: DecoderStageConfig
    steps_before: int
    name = "decoder"
    group = "decoder"
    title = "sharp decoder"
    depends_on = (*SHARED_FIELDS, "decoder")

    @property
    def training(self) -> TrainingConfig | None:
        """How the decoder is trained."""
        return self.config.training

    def done(self, folder: RunFolder) -> bool:
        """Whether the trained decoder is written."""
        return is_saved(folder.decoder)

    def run(self, session: TrainingSession) -> Iterator[Event]:
        """Trains and writes the decoder; one that is there must fit the autoencoder."""
        folder, config, device = session.folder, session.config, session.device
        require_autoencoder(folder)
        autoencoder = load_autoencoder(folder.autoencoder)
        assert isinstance(autoencoder, VQVAE), "a run on pixels has no decoder"
        if self.done(folder):
            load_decoder(folder.decoder, autoencoder)
            return
        network = yield from perceptual_network(session, self.config)
        with seeded_weights(config.seed, "decoder"):
            decoder = SharpDecoder(self.config.model, autoencoder.config)
            discriminator = Discriminator(self.config.discriminator)
        if network is not None:
            decoder.perceptual_network = digest_of(network, self.config.network_name)
        models = DecoderModels(
            on_device(autoencoder, device),
            on_device(decoder, device),
            on_device(discriminator, device),
            None if network is None else on_device(PerceptualDistance(network), device),
        )
        task = DecoderTask(models, session.splits.train, self.config, config.seed, session.world)
        job: StageTraining[Part, None] = StageTraining(
            self.name,
            task,
            lambda module: validate(session, models, module),
            None,  # the squared error, for one, is lowest before the images become sharp
            lambda module: preview(session, models, module),
            self.steps_before,
        )
        yield from fit(session, job)
        if session.world.is_main:
            save_decoder(folder.decoder, decoder, code_fingerprint(autoencoder))
        session.world.barrier()


def on_device(module: M, device: torch.device) -> M:
    """The module on a device, with its kernels in the layout of images."""
    module.to(device)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return module


@torch.no_grad()
def validate(
    session: TrainingSession, models: DecoderModels, decoder: nn.Module
) -> dict[str, float]:
    """Squared error, perceptual and spectral distance on validation images."""
    validation, world = session.splits.validation, session.world
    config = session.config.decoder
    assert config is not None
    indices = evenly_spaced(len(validation), config.training.validation_examples)
    sums, originals, sharp = torch.zeros(3, dtype=torch.float64), MeanSharpness(), MeanSharpness()
    for images in validation.batches(world.shard_nonempty(indices), session.device):
        decoded = decoder(code_vectors(models.autoencoder, images)).clamp(0, 1)
        distance = images.new_zeros(())
        if models.perceptual is not None:
            distance = models.perceptual(images, decoded).mean()
        errors = torch.stack([images.new_ones(()), F.mse_loss(decoded, images), distance])
        weighted = exact(errors) * len(images)
        sums = weighted + to_device(sums.to(weighted.dtype), weighted.device)
        originals.add(images)
        sharp.add(decoded)
    count, mse, distance = world.sum(sums).tolist()
    metrics = {"mse": mse / count, **originals.mean(world).distances(sharp.mean(world))}
    if models.perceptual is not None:
        metrics["perceptual"] = distance / count
    return metrics


@torch.no_grad()
def preview(session: TrainingSession, models: DecoderModels, decoder: nn.Module) -> "Image":
    """Validation images decoded by both decoders."""
    assert isinstance(decoder, SharpDecoder)
    validation = session.splits.validation
    indices = evenly_spaced(len(validation), NUM_PREVIEW_IMAGES)
    images = torch.cat(list(validation.batches(indices, session.device)))
    return preview_decoders(models.autoencoder, decoder, images)
