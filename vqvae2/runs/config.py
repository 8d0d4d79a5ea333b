"""What a run is: one frozen value, resolved before it starts and saved with it."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from vqvae2.autoencoder.pixels import PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.code_grid import CodeGrid
from vqvae2.data.augmentation import AugmentationConfig
from vqvae2.data.config import DataConfig
from vqvae2.priors import Domain, Prior, PriorConfig
from vqvae2.sampling import SamplingConfig
from vqvae2.weights import sketch_of


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How one model is trained.

    Arguments:
        steps: optimizer steps.
        batch: examples a step, of all ranks and accumulated parts together.
        accumulate: parts that a rank's share of the batch is cut into, to save memory.
        learning_rate: of Adam, after warm-up.
        warmup_steps: steps over which it rises from 0.
        cooldown: last part of the steps, over which it falls to 0.
        clip_norm: gradients are scaled down to this norm.
        skip_not_finite: so many steps of a stage may have a gradient that is no number; they are
            left out, for which every step waits for its gradient. 0 stops at the first.
        compile: the model is compiled (`torch.compile`): minutes once, then faster steps on a GPU.
        recompute: what layers hold for their gradient is computed again instead of kept: less
            memory for about a third more time.
        shard_optimizer: each rank keeps a part of Adam's state: 8 bytes a parameter over all
            ranks instead of on each.
        average_decay: of the moving average of the weights that is kept, measured and saved.
        validate_every: steps between looks at validation examples.
        validation_examples: validation examples a look, at most.
        save_every: steps between checkpoints.
        log_every: steps between lines of the log.
    """

    steps: int
    batch: int = 32
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    cooldown: float = 0.3
    clip_norm: float = 1.0
    skip_not_finite: int = 0
    compile: bool = False
    recompute: bool = False
    shard_optimizer: bool = False
    average_decay: float = 0.98
    validate_every: int = 500
    validation_examples: int = 1000
    save_every: int = 500
    log_every: int = 25

    def check(self, name: str) -> None:
        """Raises ValueError for numbers that no training can have; `name` says whose."""
        positive = ("steps", "batch", "accumulate", "validate_every", "validation_examples")
        for field_name in (*positive, "save_every", "log_every"):
            if getattr(self, field_name) < 1:
                value = getattr(self, field_name)
                raise ValueError(f"{name}.{field_name} must be at least 1, got {value}.")
        if self.skip_not_finite < 0:
            raise ValueError(f"{name}.skip_not_finite counts steps, got {self.skip_not_finite}.")
        if not 0 <= self.cooldown <= 1:
            raise ValueError(f"{name}.cooldown is a part of the steps, got {self.cooldown}.")


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """How the autoencoder is trained: `train`, and what keeps every level's codes at work.

    The paper's plain form is `continuous_steps=0, level_dropout=0` with `revive_below=0` in the
    codebook; `docs/codebooks.md` shows what each of the three does.

    Arguments:
        train: the loop.
        continuous_steps: first steps without quantisation, so that codes start from an encoder
            that already says something.
        start_vectors_a_code: encoder outputs a code, at the coarsest level, that the codes start
            from.
        level_dropout: part of the images whose finer levels are blanked for the decoder, which
            so learns to draw from the coarse levels alone; without it the finest level explains
            the image and the coarse ones starve.
    """

    train: TrainingConfig
    continuous_steps: int = 100
    start_vectors_a_code: int = 16
    level_dropout: float = 0.15


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides what a run computes.

    Arguments:
        preset: the name of the function in `vqvae2.runs.presets` that it came from.
        seed: of the weights, the order of examples and all noise.
        data: the images.
        autoencoder: the model of stage 1; `PixelsConfig` for a prior on the images themselves.
        stage1: how it is trained; None for pixels, where there is nothing to learn.
        views: which views of a training image become codes.
        priors: the models of stage 2, one a level, coarsest first.
        stage2: how they are trained, one a prior.
        draws: how each level is drawn, one a prior.
        num_classes: of the labels; 1 for images without.
        precision: "auto" is bfloat16 autocast on a GPU that has it, float32 elsewhere.
    """

    preset: str
    seed: int = 0
    data: DataConfig
    autoencoder: VQVAEConfig | PixelsConfig
    stage1: AutoencoderConfig | None
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    priors: tuple[PriorConfig, ...] = ()
    stage2: tuple[TrainingConfig, ...] = ()
    sampling: tuple[SamplingConfig, ...] = field(default_factory=tuple)
    num_classes: int = 1
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    def check(self) -> None:
        """Raises ValueError for what would only fail later: lengths, numbers, sizes."""
        if self.priors:
            counts = (len(self.priors), len(self.stage2), len(self.sampling))
            if counts != (self.autoencoder.num_levels,) * 3:
                raise ValueError(
                    f"A run needs one prior, one training and one way to draw for each of its "
                    f"{self.autoencoder.num_levels} levels, got {counts}."
                )
        if (self.stage1 is None) != self.on_pixels:
            raise ValueError("A run has a stage 1 exactly if its autoencoder is to be learnt.")
        if self.stage1 is not None:
            self.stage1.train.check("stage1.train")
        if self.on_pixels and self.augmentation.count > 1:
            raise ValueError("Views become codes, and a run on pixels has none.")
        for level, train in enumerate(self.stage2):
            train.check(f"stage2.{level}")
        self.grids()
        sketch_of(self.autoencoder.build, self.autoencoder, "autoencoder")
        for level, config in enumerate(self.priors):
            domain = self.domain(level)
            sketch_of(partial(Prior, config, domain), config, f"priors.{level}")

    @property
    def on_pixels(self) -> bool:
        """Whether the prior is one of pixels, without an autoencoder."""
        return isinstance(self.autoencoder, PixelsConfig)

    def trainings(self) -> dict[str, TrainingConfig]:
        """How each stage that learns is trained, in order; the keys are "stage1", "prior0", ..."""
        first = {} if self.stage1 is None else {"stage1": self.stage1.train}
        return first | {f"prior{level}": train for level, train in enumerate(self.stage2)}

    def grids(self) -> list[CodeGrid]:
        """Each level's codes, coarsest first."""
        return self.autoencoder.grids(self.data.size, self.data.size)

    def domain(self, level: int) -> Domain:
        """What the prior of `level` is a distribution over."""
        grids = self.grids()
        codes = Domain(
            grid=grids[level],
            coarser=tuple(grids[:level]),
            num_classes=self.num_classes,
        )
        if not isinstance(self.autoencoder, PixelsConfig):
            return codes
        return replace(
            codes,
            channels=self.autoencoder.image_channels,
            ordered=True,
            num_mixtures=self.autoencoder.num_mixtures,
        )
