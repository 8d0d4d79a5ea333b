"""Stage 2: a prior learns the codes of one level, given labels and coarser codes (Sec. 3.2).

Each level's prior is trained on its own, on extracted codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vqvae2.data.augmentation import AugmentationConfig
from vqvae2.data.codes import CodeDataset, PixelCodes, open_codes
from vqvae2.data.order import batch_indices, evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES, preview_samples
from vqvae2.metrics.likelihood import nats_per_code
from vqvae2.precision import computing
from vqvae2.priors import Prior
from vqvae2.randomness import generator, seeded_weights
from vqvae2.runs.config import LevelConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.fit import StageTraining, fit
from vqvae2.training.loop import Loss, Phase
from vqvae2.training.session import Event, TrainingSession, examples_per_part, require_batch
from vqvae2.training.stage import SHARED_FIELDS, Stage, is_saved, require_autoencoder
from vqvae2.weights import code_fingerprint, load_autoencoder, load_prior, save_prior

if TYPE_CHECKING:
    from PIL.Image import Image

Part = tuple[list[Tensor], Tensor, tuple[Tensor, ...]]
"""Codes (B, H, W) of each level up to the one that is trained, labels (B,), and which codes the
prior reads, (B, H, W) bool, where some are hidden."""


NO_AUGMENTATION = AugmentationConfig()


class PriorLoss(nn.Module):
    """Nats per code of a prior, as one forward pass (processes exchange gradients around it)."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(
        self, codes: Tensor, labels: Tensor, coarser: list[Tensor], visible: Tensor | None = None
    ) -> Tensor:
        """Mean negative log-probability per code in nats, a scalar."""
        return -self.prior.log_prob(codes, labels, coarser, visible).mean()


class PriorTask:
    """Training of the prior of one level.

    The prior's dropout draws from torch's global generator, which `before_step` sets from (seed,
    level, step, rank): the only place that does so.

    Arguments:
        prior: the prior of `level`.
        level: the code map that it models, 0 is the coarsest.
        codes: the training split.
        config: the level's config.
        seed: of the order of examples and of all noise.
        world: the processes that train together.
        augmentation: which augmented images the codes are of.
    """

    def __init__(
        self,
        prior: Prior,
        level: int,
        codes: CodeDataset,
        config: LevelConfig,
        *,
        seed: int,
        world: World = SINGLE_PROCESS,
        augmentation: AugmentationConfig = NO_AUGMENTATION,
    ) -> None:
        self.augmentation = augmentation
        self.prior, self.level, self.codes, self.config = prior, level, codes, config
        self.seed, self.world = seed, world
        self.training: TrainingConfig = config.training
        self.phases = [
            Phase("prior", PriorLoss(prior), self.loss, self.training, hidden=prior.network)
        ]
        require_batch(len(codes), self.training, world)

    def indices(self, step: int) -> Tensor:
        """The examples of this process at `step`, (B,)."""
        order, batch = self.codes.order, self.training.batch
        return batch_indices(order, batch, self.seed, step, self.world)

    def example_names(self, step: int) -> list[str]:
        """Their numbers in the code dataset."""
        return [f"number {index}" for index in self.indices(step).tolist()]

    def batch(self, step: int) -> list[Part]:
        """The examples of `step` in parts, with what is dropped, replaced or hidden of them."""
        parts: list[Part] = []
        for number, indices in enumerate(self.indices(step).chunk(self.training.accumulate)):
            codes, labels = self.codes.batch(indices)
            codes = codes[: self.level + 1]
            noise = generator("dropped", self.seed, self.level, step, self.world.rank, number)
            labels = self.dropped_labels(labels, noise)
            if self.config.mirror_bit:
                mirrored = self.augmentation.is_mirrored(indices)
                labels = labels + self.prior.domain.num_labels * mirrored
            codes = [*self.corrupted(codes[:-1], noise), codes[-1]]
            parts.append((codes, labels, self.visible(codes[-1], noise)))
        return parts

    def dropped_labels(self, labels: Tensor, noise: torch.Generator) -> Tensor:
        """Labels (B,), a fraction of them replaced by the null label."""
        if not self.config.label_dropout:
            return labels
        dropped = torch.rand(len(labels), generator=noise) < self.config.label_dropout
        return torch.where(dropped, self.prior.domain.null, labels)

    def corrupted(self, coarser: list[Tensor], noise: torch.Generator) -> list[Tensor]:
        """Coarser codes (B, H, W) each, a fraction of each image's replaced by random ones."""
        if not self.config.coarser_dropout:
            return coarser
        maps = []
        for grid, codes in zip(self.prior.domain.coarser, coarser, strict=True):
            random = torch.randint(grid.num_codes, codes.shape, generator=noise)
            replaced = chosen_positions(codes, self.config.coarser_dropout, noise)
            maps.append(torch.where(replaced, random, codes))
        return maps

    def visible(self, codes: Tensor, noise: torch.Generator) -> tuple[Tensor, ...]:
        """The positions of codes (B, H, W, ...) that the prior reads; () where it reads all."""
        if not self.config.masking:
            return ()
        return (~chosen_positions(codes, self.config.masking, noise),)

    def before_step(self, step: int) -> None:
        """Makes this step's dropout a function of (seed, level, step, rank)."""
        key = ("dropout", self.seed, self.level, step, self.world.rank)
        torch.manual_seed(generator(*key).initial_seed())

    def loss(self, module: nn.Module, part: Part, step: int) -> Loss[None]:
        """Nats per code of one part."""
        codes, labels, visible = part
        nats: Tensor = module(codes[-1], labels, codes[:-1], *visible)
        return Loss(nats, {"nats_per_code": (nats.detach(), nats.new_ones(()))}, None)

    def after_step(self, outputs: list[None], step: int) -> None:
        """Nothing: a prior has no codebook."""


def chosen_positions(codes: Tensor, largest: float, noise: torch.Generator) -> Tensor:
    """Random positions (B, H, W) bool of codes (B, H, W, ...), a fraction of each image's.

    The expected fraction of each image is uniform in [0, largest].
    """
    fractions = largest * torch.rand(len(codes), 1, 1, generator=noise)
    return torch.rand(codes.shape[:3], generator=noise) < fractions


@dataclass(frozen=True)
class PriorStage(Stage):
    """Trains the prior of one level and writes it to `model/priors/LEVEL`.

    Arguments:
        level: which one, 0 is the coarsest.
        config: the level's config.
        steps_before: optimizer steps of the stages before it.
    """

    level: int
    config: LevelConfig
    steps_before: int
    group = "priors"

    @property
    def name(self) -> str:
        """`prior0`, `prior1`, ..."""
        return f"prior{self.level}"

    @property
    def title(self) -> str:
        """The name in messages and reports."""
        return f"prior of level {self.level}"

    @property
    def training(self) -> TrainingConfig | None:
        """How the prior is trained."""
        return self.config.training

    @property
    def depends_on(self) -> tuple[str, ...]:
        """Everything that decides the codes, and its own level's config."""
        level = f"levels.{self.level}"
        names = ("prior", "training", "label_dropout", "coarser_dropout", "masking", "mirror_bit")
        return (*SHARED_FIELDS, "augmentation", *(f"{level}.{name}" for name in names))

    def done(self, folder: RunFolder) -> bool:
        """Whether the trained prior is written."""
        return is_saved(folder.prior(self.level))

    def run(self, session: TrainingSession) -> Iterator[Event]:
        """Trains and writes the prior; one that is there must fit the autoencoder."""
        folder, config = session.folder, session.config
        require_autoencoder(folder)
        autoencoder = load_autoencoder(folder.autoencoder).to(session.device)
        digest = code_fingerprint(autoencoder)
        if self.done(folder):
            load_prior(folder.prior(self.level), digest)
            return
        codes, validation = code_splits(session, digest, self.level + 1)
        with seeded_weights(config.seed, self.name):
            prior = Prior(self.config.prior, config.domain(self.level)).to(session.device)
        task = PriorTask(
            prior,
            self.level,
            codes,
            self.config,
            seed=config.seed,
            world=session.world,
            augmentation=config.augmentation,
        )

        def validate(module: nn.Module) -> dict[str, float]:
            training, world = task.training, session.world
            batch = examples_per_part(training, world)
            limit = training.validation_examples
            with computing(session.config.precision, session.device):
                nats = nats_per_code(prior_of(module), validation, limit, batch, world)
            return {"nats_per_code": nats}

        def preview(module: nn.Module) -> "Image":
            maps, labels = validation.batch(evenly_spaced(len(validation), NUM_PREVIEW_IMAGES))
            return preview_samples(prior_of(module), self.level, autoencoder, maps, labels)

        job: StageTraining[Part, None]
        job = StageTraining(self.name, task, validate, "nats_per_code", preview, self.steps_before)
        yield from fit(session, job)
        if session.world.is_main:
            save_prior(folder.prior(self.level), prior, digest)
        session.world.barrier()


def code_splits(
    session: TrainingSession, autoencoder: str, num_levels: int
) -> tuple[CodeDataset, CodeDataset]:
    """The training and validation codes, or the images themselves for a prior on pixels."""
    if session.config.on_pixels:
        return PixelCodes(session.splits.train), PixelCodes(session.splits.validation)
    folder = session.folder.codes
    train = open_codes(folder, "train", autoencoder, num_levels)
    if train.info.dataset != session.augmented.fingerprint():
        raise ValueError(
            f"The codes in {folder} are of other augmented images; extract them again with "
            "`--stage codes`."
        )
    return train, open_codes(folder, "validation", autoencoder)


def prior_of(module: nn.Module) -> Prior:
    """The prior inside a task's module."""
    assert isinstance(module, PriorLoss)
    return module.prior
