"""A run for a number of hours: sizes from a table, steps from what steps cost (docs/budget.md).

`design` chooses what does not depend on the speed of single steps: the side of the images, the
grids of codes, the sizes of the networks, the regularisation. `allot` then gives every stage its
steps, from the costs that `vqvae2.training.planning` measures. Both are functions of their
arguments alone, and their result is an ordinary `RunConfig`, frozen in the run folder stage by
stage: a stage that begins gets its last number of steps (`vqvae2.training.pacing`).
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.discriminator import DiscriminatorConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoderConfig
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.data.augmentation import AugmentationConfig
from vqvae2.data.config import DataConfig
from vqvae2.data.facts import ImageFacts
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.priors import TransformerConfig
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig, RunConfig
from vqvae2.runs.decoder import CLASSIFIER, DecoderStageConfig, PerceptualConfig
from vqvae2.runs.scales import REGULARIZATIONS, SCALES, SHARES, SIZES, Scale
from vqvae2.runs.training import TrainingConfig
from vqvae2.sampling import SamplingConfig

UNPLANNED = 1_000_000
"""Steps of a stage before `allot`; a stage with another number keeps it."""

USES_PER_CODE = 32
"""How often the training images use each code, at least; fewer images get fewer codes."""

MIN_STEPS = 100
"""Steps of a stage below which nothing is learnt."""

NUM_VALIDATIONS, VALIDATION_SHARE = 8, 0.03
"""Validations of a stage, and the share of its time that they may take."""

SECONDS_BETWEEN_SAVES = 60.0


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """What training a stage costs on the machine that trains it.

    Arguments:
        step: seconds of a training step, the mean over all steps.
        example: seconds that the validation of one example takes.
    """

    step: float
    example: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run costs on the machine that trains it.

    Arguments:
        autoencoder: stage 1.
        decoder: the decoder stage, if there is one.
        classifier_step: seconds of a step of the classifier that is its perceptual network; 0
            without one.
        levels: the priors.
        fixed: seconds that do not depend on the number of steps: reading images, extracting codes,
            the evaluation and the samples at the end.
    """

    autoencoder: StageCost
    decoder: StageCost | None = None
    classifier_step: float = 0.0
    levels: tuple[StageCost, ...]
    fixed: float = 0.0


def preset_name(hours: float) -> str:
    """`RunConfig.preset` of a run for some hours, such as "0.5h"."""
    return f"{hours:g}h"


def design(
    hours: float, data: DataConfig, facts: ImageFacts, flops: float, network: str
) -> RunConfig:
    """The config of a run for some hours, whose numbers of steps are still `UNPLANNED`.

    Arguments:
        hours: for the name of the run.
        data: the source; its size is chosen here.
        facts: about the images of the source.
        flops: floating point operations that the hours pay for, at the rate of matrix products.
        network: the perceptual network of the decoder stage as `PerceptualConfig` names it; "" for
            none.
    """
    scale = [scale for scale in SCALES if scale.flops <= flops][-1]
    size = choose_size(facts.short_side, scale.size)
    factors = choose_factors(size, scale.grid)
    grids = VQVAEConfig(factors=factors).grids(size, size)
    most = [128, *[512] * (len(grids) - 1)]
    num_codes = [
        choose_num_codes(facts.num_images * grid.num_positions, limit)
        for grid, limit in zip(grids, most, strict=True)
    ]
    batches = Batches.of(scale, facts.num_images)
    training = TrainingConfig(steps=UNPLANNED, batch=batches.images)
    return RunConfig(
        preset=preset_name(hours),
        data=replace(data, size=size),
        num_classes=facts.num_classes,
        augmentation=AugmentationConfig(mirror=True),
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(
                factors=factors,
                channels=scale.channels,
                residual_channels=scale.channels // 2,
                codebooks=tuple(CodebookConfig(num_codes=number) for number in num_codes),
            ),
            training=training,
            mirror=True,
            perturbation=0.1,
        ),
        decoder=design_decoder(scale, training, network),
        levels=tuple(design_level(level, scale, facts, batches) for level in range(len(factors))),
    )


def choose_size(short_side: int, largest: int) -> int:
    """The largest side that the budget allows and that enlarges images by at most a third."""
    return max(
        size for size in SIZES if size == SIZES[0] or size <= min(largest, 4 * short_side / 3)
    )


def choose_factors(size: int, grid: int) -> tuple[int, int]:
    """The factors of two levels whose finest grid has at most `grid` codes a side."""
    return 2, max(4, size // grid)


def choose_num_codes(num_uses: int, limit: int) -> int:
    """A power of two from 32 to `limit`: as many codes as the images use `USES_PER_CODE` times."""
    return 1 << max(5, int(math.log2(min(limit, max(1, num_uses // USES_PER_CODE)))))


@dataclass(frozen=True)
class Batches:
    """Examples per step of the stages on images, of the coarsest prior and of the others."""

    images: int
    coarsest: int
    finer: int

    @classmethod
    def of(cls, scale: Scale, num_images: int) -> "Batches":
        """Those of the scale, or smaller powers of two where an epoch has less than 4 of them."""
        limit = 1 << max(0, int(math.log2(max(1, num_images // 4))))
        sizes = (scale.image_batch, scale.coarse_batch, scale.fine_batch)
        return cls(*(min(size, limit) for size in sizes))


def design_decoder(scale: Scale, training: TrainingConfig, network: str) -> DecoderStageConfig:
    """The decoder stage; without a perceptual network it is adversarial alone."""
    return DecoderStageConfig(
        training=replace(training, learning_rate=4e-4, beta1=0.5, beta2=0.99),
        model=SharpDecoderConfig(
            channels=scale.decoder_channels, residual_channels=scale.decoder_channels // 2
        ),
        discriminator=DiscriminatorConfig(channels=scale.discriminator_channels),
        perceptual=PerceptualConfig(
            network=network or CLASSIFIER, classifier=ClassifierTraining(steps=UNPLANNED)
        ),
        perceptual_weight=1.0 if network else 0.0,
    )


def design_level(level: int, scale: Scale, facts: ImageFacts, batches: Batches) -> LevelConfig:
    """The prior of a level; finer levels have more codes per image and need less against few."""
    is_coarsest, is_labelled = level == 0, facts.num_classes > 1
    strength = [r for r in REGULARIZATIONS if r.num_images <= facts.num_images][-1]
    prior = TransformerConfig(
        channels=scale.prior_channels,
        num_layers=scale.prior_layers,
        num_heads=scale.prior_channels // 32,
        dropout=strength.dropout if is_coarsest else strength.dropout / 2,
        num_conditioning_blocks=0 if is_coarsest else 1,
    )
    return LevelConfig(
        prior=prior,
        training=TrainingConfig(
            steps=UNPLANNED,
            batch=batches.coarsest if is_coarsest else batches.finer,
            optimizer="muon",
            learning_rate=3e-3,
            weight_decay=strength.weight_decay,
            beta2=0.95,
            cooldown=0.8,
            cooldown_shape="cosine",
        ),
        sampling=SamplingConfig(guidance=(3 if is_coarsest else 1.5) if is_labelled else 1),
        label_dropout=0.1 if is_labelled else 0.0,
        coarser_dropout=0.0 if is_coarsest else 0.2,
        masking=strength.masking if is_coarsest else strength.masking / 2,
        mirror_bit=True,
    )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The time of a run, in budget.json.

    Arguments:
        hours: of the whole run.
        spent: seconds of them that have passed, over all calls.
        open: stages that have not begun, whose steps may still change.
    """

    hours: float
    spent: float = 0.0
    open: tuple[str, ...] = ()

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return 3600 * self.hours - self.spent


@dataclass(frozen=True)
class Part:
    """One number of steps of a run: the stage, how many, seconds of each, share of the time."""

    stage: str
    steps: int
    step: float
    share: float

    @property
    def is_free(self) -> bool:
        """Whether `allot` chooses the number of steps."""
        return self.steps == UNPLANNED


def parts_of(config: RunConfig, costs: Costs) -> list[Part]:
    """All numbers of steps of a run."""
    assert config.autoencoder.training is not None, "a design has an autoencoder"
    steps = config.autoencoder.training.steps
    parts = [Part("autoencoder", steps, costs.autoencoder.step, SHARES.autoencoder)]
    if config.decoder is not None and costs.decoder is not None:
        steps = config.decoder.training.steps
        parts.append(Part("decoder", steps, costs.decoder.step, SHARES.decoder))
        if costs.classifier_step:
            steps = config.decoder.perceptual.classifier.steps
            parts.append(Part("decoder", steps, costs.classifier_step, SHARES.classifier))
    shares = level_shares(len(config.levels))
    for index, level in enumerate(config.levels):
        cost = costs.levels[index]
        parts.append(Part(f"prior{index}", level.training.steps, cost.step, shares[index]))
    return parts


def planned_stages(config: RunConfig) -> tuple[str, ...]:
    """The stages of a design whose steps `allot` chooses."""
    assert config.autoencoder.training is not None, "a design has an autoencoder"
    steps = {"autoencoder": config.autoencoder.training.steps}
    if config.decoder is not None:
        steps["decoder"] = config.decoder.training.steps
    steps |= {f"prior{index}": level.training.steps for index, level in enumerate(config.levels)}
    return tuple(stage for stage, number in steps.items() if number == UNPLANNED)


def unplanned(config: RunConfig, stages: Collection[str]) -> RunConfig:
    """The config with the steps of some stages `UNPLANNED` again."""

    def reopened(training: TrainingConfig) -> TrainingConfig:
        return replace(training, steps=UNPLANNED)

    decoder, levels = config.decoder, list(config.levels)
    if decoder is not None and "decoder" in stages:
        perceptual = decoder.perceptual
        classifier = replace(perceptual.classifier, steps=UNPLANNED)
        perceptual = replace(perceptual, classifier=classifier)
        decoder = replace(decoder, training=reopened(decoder.training), perceptual=perceptual)
    for index, level in enumerate(levels):
        if f"prior{index}" in stages:
            levels[index] = replace(level, training=reopened(level.training))
    return replace(config, decoder=decoder, levels=tuple(levels))


def level_shares(num_levels: int) -> list[float]:
    """The share of each level's prior, coarsest first."""
    finer = num_levels - 1
    return [SHARES.coarsest, *[SHARES.finer / finer] * finer] if num_levels else []


def allot(config: RunConfig, costs: Costs, seconds: float, spent: float = 0.0) -> RunConfig:
    """The config with the steps of every stage, so that the run takes about `seconds`.

    Stages whose steps are not `UNPLANNED` keep them, and their time.

    Arguments:
        config: a design.
        costs: what its stages cost here.
        seconds: that are left.
        spent: seconds that have passed, for the message of the error.

    Raises:
        ValueError: the time is too short; the message says how long it must be.
    """
    parts = parts_of(config, costs)
    total = sum(part.share for part in parts if part.is_free)
    given, least = given_seconds(parts, costs), least_seconds(config, costs)
    if seconds < least:
        hours = math.ceil(1.1 * (least + spent) / 36) / 100
        raise ValueError(
            f"These images and models need at least {hours:g} hours on this machine, got "
            f"{(seconds + spent) / 3600:.2g}; give more hours, or smaller images (data.size)."
        )
    unit = (seconds - given) / total if total else 0.0
    assert config.autoencoder.training is not None
    training = planned(config.autoencoder.training, costs.autoencoder, unit * SHARES.autoencoder)
    first = min(config.autoencoder.continuous_steps, training.steps // 20)
    shares = level_shares(len(config.levels))
    return replace(
        config,
        autoencoder=replace(config.autoencoder, training=training, continuous_steps=first),
        decoder=config.decoder and planned_decoder(config.decoder, costs, unit),
        levels=tuple(
            replace(level, training=planned(level.training, cost, unit * share))
            for level, cost, share in zip(config.levels, costs.levels, shares, strict=True)
        ),
    )


def given_seconds(parts: Iterable[Part], costs: Costs) -> float:
    """Seconds that `allot` cannot choose."""
    return costs.fixed + sum(part.steps * part.step for part in parts if not part.is_free)


def least_seconds(config: RunConfig, costs: Costs) -> float:
    """The shortest time for which `allot` gives every stage `MIN_STEPS`."""
    parts = parts_of(config, costs)
    free = [part for part in parts if part.is_free]
    total = sum(part.share for part in free)
    longest = max((MIN_STEPS * part.step * total / part.share for part in free), default=0.0)
    return given_seconds(parts, costs) + longest


def planned_decoder(config: DecoderStageConfig, costs: Costs, unit: float) -> DecoderStageConfig:
    """The decoder stage with its steps and those of its classifier; `unit` in seconds."""
    assert costs.decoder is not None, "a decoder stage has a cost"
    classifier = config.perceptual.classifier
    if classifier.steps == UNPLANNED:
        seconds = unit * SHARES.classifier
        steps = int(seconds / costs.classifier_step) if costs.classifier_step else MIN_STEPS
        classifier = replace(classifier, steps=steps)
    return replace(
        config,
        training=planned(config.training, costs.decoder, unit * SHARES.decoder),
        perceptual=replace(config.perceptual, classifier=classifier),
    )


def planned(training: TrainingConfig, cost: StageCost, seconds: float) -> TrainingConfig:
    """A stage's training with as many steps as the seconds pay for, and what follows from them."""
    if training.steps != UNPLANNED:
        return training
    steps = int(seconds * (1 - VALIDATION_SHARE) / cost.step)
    examples = int(seconds * VALIDATION_SHARE / NUM_VALIDATIONS / cost.example)
    return replace(
        training,
        steps=steps,
        warmup_steps=min(100, steps // 20),
        average_decay=1 - 1 / max(50, steps // 25),
        validate_every=max(1, steps // NUM_VALIDATIONS),
        validation_examples=min(2000, max(64, examples)),
        save_every=max(25, round(SECONDS_BETWEEN_SAVES / cost.step)),
        log_every=max(1, min(100, steps // 100)),
    )
