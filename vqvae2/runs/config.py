"""What a run is: one frozen value, resolved before training starts and saved in the run folder."""

from dataclasses import dataclass, field, replace
from functools import partial

from torch import nn

from vqvae2.autoencoder.discriminator import Discriminator
from vqvae2.autoencoder.pixels import PixelsConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import AtLeast0, AtLeast1, Fraction, require_ranges
from vqvae2.data.augmentation import AugmentationConfig
from vqvae2.data.config import DataConfig
from vqvae2.precision import Precision
from vqvae2.priors import Domain, Prior, PriorConfig
from vqvae2.runs.decoder import CLASSIFIER, DecoderStageConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.sampling import SamplingConfig
from vqvae2.saving import build_outline

NUM_CHANNELS = 3
"""Of the images of every source."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderStageConfig:
    """Stage 1: the autoencoder and how it is trained.

    Three settings prevent codebook collapse; the paper's plain form is `continuous_steps=0,
    level_dropout=0` with `revive_below=0` in the codebooks (docs/codebooks.md compares them).

    Arguments:
        model: the autoencoder; `PixelsConfig` for a prior on the pixels themselves.
        training: the optimization; None for pixels, which need none.
        continuous_steps: first steps without quantisation, so that the codebooks start from the
            outputs of an encoder that is already useful.
        start_vectors_per_code: encoder outputs per code from which each codebook starts, at least,
            within 1,024 images.
        level_dropout: fraction of the images whose finer levels are hidden from the decoder, which
            so learns to use the coarse levels; otherwise the finest level explains the image and
            the coarse codes carry nothing.
        perturbation: fraction of the images of which every code is replaced by itself or one of
            the nearest ones before it is decoded, falling to half of it over the training: the
            decoder tolerates the errors of priors (arXiv 2509.12474).
        mirror: whether half of the images are mirrored, left to right.
    """

    model: VQVAEConfig | PixelsConfig
    training: TrainingConfig | None
    continuous_steps: AtLeast0 = 100
    start_vectors_per_code: AtLeast1 = 16
    level_dropout: Fraction = 0.15
    perturbation: Fraction = 0.0
    mirror: bool = False

    def check(self, name: str) -> None:
        """Raises ValueError for numbers out of range."""
        if (self.training is None) != isinstance(self.model, PixelsConfig):
            raise ValueError(
                f"{name}.training must be null for pixels, which are not trained, and set for an "
                "autoencoder."
            )
        if self.training is not None:
            self.training.check(f"{name}.training")
        require_ranges(f"{name}.", self)
        if self.never_quantizes:
            assert self.training is not None
            steps = self.training.steps
            raise ValueError(
                f"{name}.continuous_steps must be below {name}.training.steps ({steps}), got "
                f"{self.continuous_steps}: the autoencoder would never use its codebooks. Train "
                f"for more steps, or set continuous_steps to {steps // 10}."
            )

    @property
    def never_quantizes(self) -> bool:
        """Whether training ends before quantisation begins."""
        return self.training is not None and self.training.steps <= self.continuous_steps


@dataclass(frozen=True, kw_only=True)
class LevelConfig:
    """Stage 2 for one level: its prior, how it is trained and how it is sampled.

    Arguments:
        prior: the architecture.
        training: the optimization.
        sampling: default sampling settings.
        label_dropout: fraction of the examples that are trained without their label, so that the
            prior also learns the unconditional distribution (arXiv 2207.12598).
        coarser_dropout: largest fraction of the coarser codes of an image that are replaced by
            random ones in training, so that the prior tolerates sampled codes that no image has;
            the fraction of each example is uniform in [0, coarser_dropout].
        masking: largest fraction of an image's codes that training hides from the prior where it
            reads them, so that it learns more from few images (arXiv 2510.04071); the fraction of
            each example is uniform in [0, masking].
        mirror_bit: whether the prior is told which images are mirrored; for runs with
            `augmentation.mirror`.
    """

    prior: PriorConfig
    training: TrainingConfig
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    label_dropout: Fraction = 0.0
    coarser_dropout: Fraction = 0.0
    masking: Fraction = 0.0
    mirror_bit: bool = False

    def check(self, name: str) -> None:
        """Raises ValueError for numbers out of range."""
        self.training.check(f"{name}.training")
        require_ranges(f"{name}.", self)
        guided = self.sampling.guidance != 1 and self.sampling.unconditional == "null-label"
        if guided and not self.label_dropout:
            raise ValueError(
                f"{name}.sampling.guidance {self.sampling.guidance:g} needs a prior that is "
                f"trained with label dropout: set {name}.label_dropout, for instance to 0.1, or "
                f"{name}.sampling.unconditional to bayes."
            )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes.

    Arguments:
        preset: name of the function in `vqvae2.runs.presets` that made it.
        seed: of the weights, the order of examples and all noise.
        data: the images.
        autoencoder: stage 1.
        augmentation: variants of the training images whose codes the priors learn.
        decoder: the decoder stage; None for the plain decoder alone.
        levels: stage 2, one entry per level, coarsest first; () trains no priors.
        num_classes: number of labels; 1 without labels.
        precision: of training and evaluation: float32, tf32, bfloat16, float16 (GPUs only) or
            auto. auto is bfloat16 on a GPU that computes in it; on a CPU each stage measures once
            whether bfloat16 trains faster, and its choice is kept in the run.
    """

    preset: str
    seed: int = 0
    data: DataConfig
    autoencoder: AutoencoderStageConfig
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    decoder: DecoderStageConfig | None = None
    levels: tuple[LevelConfig, ...] = ()
    num_classes: AtLeast1 = 1
    precision: Precision = "auto"

    def check(self) -> None:
        """Raises ValueError for what would only fail later: counts, numbers, sizes."""
        model = self.autoencoder.model
        require_ranges("", self)
        if model.image_channels != NUM_CHANNELS:
            raise ValueError(
                f"autoencoder.model.image_channels must be {NUM_CHANNELS}, got "
                f"{model.image_channels}: images are read as RGB, grey ones too."
            )
        if self.levels and len(self.levels) != model.num_levels:
            raise ValueError(
                f"A run needs one entry of `levels` for each of the {model.num_levels} levels of "
                f"its autoencoder, got {len(self.levels)}."
            )
        self.autoencoder.check("autoencoder")
        if self.on_pixels and self.augmentation.count > 1:
            raise ValueError(
                "augmentation must be off for a run on pixels: it makes more codes, and there are "
                f"none. Got {self.augmentation.count} augmented images per image."
            )
        if self.decoder is not None:
            self.check_decoder(self.decoder)
        self.check_muon()
        for level, config in enumerate(self.levels):
            config.check(f"levels.{level}")
            if level == 0 and config.coarser_dropout:
                raise ValueError(
                    "levels.0.coarser_dropout must be 0, the coarsest level has no coarser codes; "
                    f"got {config.coarser_dropout}."
                )
            if config.mirror_bit and not self.augmentation.mirror:
                raise ValueError(
                    f"levels.{level}.mirror_bit needs mirrored images: set augmentation.mirror, "
                    "or leave it off."
                )
        self.grids()
        build_outline(model.build, model, "autoencoder.model")
        for level, config in enumerate(self.levels):
            build = partial(Prior, config.prior, self.domain(level))
            prior = build_outline(build, config.prior, f"levels.{level}.prior")
            is_linear = (isinstance(layer, nn.Linear) for layer in prior.network.modules())
            if config.training.optimizer == "muon" and not any(is_linear):
                raise ValueError(
                    f"levels.{level}.training.optimizer muon updates the hidden matrices of "
                    "linear layers, such as those of a transformer, and this prior has none; use "
                    "adamw."
                )

    def check_decoder(self, decoder: DecoderStageConfig) -> None:
        """Raises ValueError for a decoder stage that this run cannot have."""
        decoder.check("decoder")
        model = self.autoencoder.model
        if isinstance(model, PixelsConfig):
            raise ValueError("decoder must be null for a run on pixels, which decodes nothing.")
        if decoder.network_name == CLASSIFIER and self.num_classes < 2:
            raise ValueError(
                "decoder.perceptual.network classifier needs images of at least 2 classes, got "
                f"{self.num_classes}: sort them into one sub-folder per class, use "
                "efficientnet-lite0, or set decoder.perceptual_weight to 0."
            )
        smallest = 2**decoder.discriminator.num_scales
        if self.data.size < smallest:
            raise ValueError(
                f"decoder.discriminator.num_scales {decoder.discriminator.num_scales} needs "
                f"images of at least {smallest} pixels a side, got {self.data.size}."
            )
        build_outline(partial(SharpDecoder, decoder.model, model), decoder.model, "decoder.model")
        discriminator = partial(Discriminator, decoder.discriminator)
        build_outline(discriminator, decoder.discriminator, "decoder.discriminator")

    def with_classes(self, num_classes: int) -> "RunConfig":
        """The config for a number of classes; a single one needs no guidance towards it."""
        if num_classes > 1:
            return replace(self, num_classes=num_classes)
        levels = tuple(
            replace(level, label_dropout=0.0, sampling=replace(level.sampling, guidance=1.0))
            for level in self.levels
        )
        return replace(self, num_classes=1, levels=levels)

    def with_batches_within(self, num_images: int) -> "RunConfig":
        """The config with batches of at most `num_images` training images, powers of two."""
        largest = 1 << max(0, num_images.bit_length() - 1)

        def within(training: TrainingConfig) -> TrainingConfig:
            if training.batch <= num_images:
                return training
            return replace(training, batch=max(largest, training.accumulate))

        stage, decoder = self.autoencoder, self.decoder
        if stage.training is not None:
            stage = replace(stage, training=within(stage.training))
        if decoder is not None:
            decoder = replace(decoder, training=within(decoder.training))
        levels = tuple(replace(level, training=within(level.training)) for level in self.levels)
        return replace(self, autoencoder=stage, decoder=decoder, levels=levels)

    def check_muon(self) -> None:
        """Raises ValueError where the optimizer muon cannot train a model of this run."""
        stages = {"autoencoder": self.autoencoder.training}
        stages["decoder"] = self.decoder.training if self.decoder else None
        for name, training in stages.items():
            if training is not None and training.optimizer == "muon":
                raise ValueError(
                    f"{name}.training.optimizer muon updates the hidden matrices of linear "
                    f"layers, and the {name} has none; use adamw."
                )
        muon = [level for level in self.levels if level.training.optimizer == "muon"]
        if muon and self.precision == "float16":
            raise ValueError(
                "precision float16 does not go with the optimizer muon, which cannot skip a step "
                "on the device; use bfloat16 or float32, or the optimizer adamw."
            )

    @property
    def on_pixels(self) -> bool:
        """Whether the prior models pixels, without an autoencoder."""
        return isinstance(self.autoencoder.model, PixelsConfig)

    @property
    def sampling(self) -> tuple[SamplingConfig, ...]:
        """The sampling settings of each level."""
        return tuple(level.sampling for level in self.levels)

    def grids(self) -> list[CodeGrid]:
        """The code grid of each level, coarsest first."""
        return self.autoencoder.model.grids(self.data.size, self.data.size)

    def domain(self, level: int) -> Domain:
        """The domain of the prior of `level`."""
        model, grids = self.autoencoder.model, self.grids()
        codes = Domain(
            grid=grids[level],
            coarser=tuple(grids[:level]),
            num_classes=self.num_classes,
            null_label=self.levels[level].label_dropout > 0,
            mirror_bit=self.levels[level].mirror_bit,
        )
        if not isinstance(model, PixelsConfig):
            return codes
        return replace(
            codes,
            channels=model.image_channels,
            ordered=True,
            num_mixtures=model.num_mixtures,
        )
