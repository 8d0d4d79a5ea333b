"""Checks whether a run is healthy, and advises where it is not.

Reads logs, metrics, models and codes of the run folder. It trains and measures nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal

import torch

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodesInMemory, complete_shards, read_codes, read_info, read_shard
from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.messages import counted
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.runs.config import AutoencoderStageConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training import checkpoint
from vqvae2.training.autoencoder import AutoencoderStage
from vqvae2.training.prior import PriorStage
from vqvae2.training.stage import Stage, is_saved
from vqvae2.training.stages import stages
from vqvae2.weights import code_fingerprint, load_autoencoder, load_decoder, load_prior

MIN_ENTROPY = 0.4  # as a share of log K; below, a level has collapsed
MAX_UNUSED = 0.10  # share of the codes that may be unused
MIN_NATS = 0.05  # a prior that is more certain has nothing to predict
MAX_OVERFIT = 0.10  # validation nats above training nats, as a share of training nats
MAX_RISE = 1.01  # final validation nats over the best ones
MIN_EFFECT = 1.2  # factor by which the error grows without a level that matters
NO_EFFECT = 1.02  # factor below which a level does not matter at all
MIN_ACCURACY = 0.2  # of an extractor with the same classes: chance is 0, perfection 1
IMAGES_PER_FEATURE = 2  # with fewer images FID is mostly bias
POSITIONS_PER_CODE = 4  # with fewer code positions usage cannot be judged


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Arguments:
        verdict: "good", "warning", "problem", or "open" for what is not done yet.
        text: What the check found.
        advice: What to do; "" if nothing.
    """

    verdict: Literal["good", "warning", "problem", "open"]
    text: str
    advice: str = ""


def diagnose(folder: RunFolder) -> list[Finding]:
    """The results of all checks, from the images to the priors."""
    config, models = folder.read(), None
    if config.autoencoder.never_quantizes:
        return [without_quantization(config.autoencoder)]  # all other problems follow from it
    findings = [finding for stage in stages(config) for finding in check_stage(folder, stage)]
    if is_saved(folder.autoencoder):
        findings += check_models(folder, len(config.levels))
        try:
            models = fingerprints(Pipeline.open(folder.path))
        except ValueError as error:
            if all(str(error) != finding.text for finding in findings):
                advice = f"Remove {folder.model} and train again."
                findings.append(Finding("problem", str(error), advice))
    return [*findings, *check_samples(folder, models, config.num_classes)]


def check_stage(folder: RunFolder, stage: Stage) -> Iterator[Finding]:
    """Whether a stage is done, its checkpoints are complete, and its last validation is good."""
    if stage.training is None:
        return
    steps = stage.training.steps
    if stage.done(folder):
        yield Finding("good", f"{stage.title} is done: {steps:,} steps")
    else:
        saved, damaged = checkpoint.latest(folder.checkpoints(stage.name))
        for error in damaged.values():
            advice = "Training continues from the checkpoint before it."
            yield Finding("problem", error, advice)
        text = f"{stage.title} is at step {saved.step if saved else 0:,} of {steps:,}"
        yield Finding("warning", text, f"To continue: `vqvae2 train --run {folder.path}`.")
    lines = folder.log(stage.name).read("validation")
    if lines and isinstance(stage, AutoencoderStage):
        if lines[-1]["step"] > stage.config.continuous_steps:
            yield from judge_levels(lines[-1])
    elif lines and isinstance(stage, PriorStage):
        metrics = folder.read_metrics().priors or Measurement(0)
        yield judge_prior(stage.level, [line["nats_per_code"] for line in lines], metrics)


def without_quantization(config: AutoencoderStageConfig) -> Finding:
    """An autoencoder whose training ends before quantisation begins."""
    assert config.training is not None
    return Finding(
        "problem",
        f"the autoencoder is trained without its codebooks: all of its {config.training.steps} "
        f"steps are among the first {config.continuous_steps}, which do not quantise",
        "Train another run with more --autoencoder.training.steps, or fewer "
        "--autoencoder.continuous-steps.",
    )


def check_models(folder: RunFolder, num_levels: int) -> Iterator[Finding]:
    """Whether models and codes are complete and belong together."""
    autoencoder = ""
    try:
        model = load_autoencoder(folder.autoencoder)
        autoencoder = code_fingerprint(model)
        yield from check_codes(folder, autoencoder)
        if isinstance(model, VQVAE) and is_saved(folder.decoder):
            load_decoder(folder.decoder, model)
    except ValueError as error:
        advice = "Remove the damaged files and repeat `vqvae2 train`, which makes them again."
        yield Finding("problem", str(error), advice)
    for path in map(folder.prior, range(num_levels)):
        try:
            if autoencoder and is_saved(path):
                load_prior(path, autoencoder)
        except ValueError as error:
            yield Finding("problem", str(error), f"Remove {path} and train again.")


def judge_levels(line: dict[str, float]) -> Iterator[Finding]:
    """Whether the decoder uses the codes of each level, by the metrics of one validation."""
    factors: list[float] = []
    while (name := f"mse_level_blanked.{len(factors)}") in line:
        factors.append(line[name] / line["mse"])
    if factors and max(factors) < MIN_EFFECT:
        yield Finding(
            "problem",
            "the error hardly changes without the codes of any level: the decoder ignores them",
            "Train the autoencoder for more steps, or with a smaller learning rate.",
        )
        return
    for level, factor in enumerate(factors):
        text = f"without the codes of level {level} the error is {factor:.1f} times as high"
        if "num_images" in line:
            text += f" (on {counted(int(line['num_images']), 'validation image')})"
        if factor >= MIN_EFFECT:
            yield Finding("good", text)
            continue
        advice = "The other levels determine the image alone; raise --autoencoder.level-dropout."
        yield Finding("problem" if factor < NO_EFFECT else "warning", text, advice)


def check_codes(folder: RunFolder, autoencoder: str) -> Iterator[Finding]:
    """Whether the codes belong to the autoencoder, are complete, and use the codebooks.

    Arguments:
        folder: The run.
        autoencoder: Fingerprint of its autoencoder.
    """
    if not any(folder.codes.glob("validation-*.parquet")):
        return
    for shard in sorted(folder.codes.glob("*.parquet")):
        origin = read_info(shard).autoencoder
        if origin != autoencoder:
            text = f"{shard.name} was made by autoencoder {origin}, the model is {autoencoder}"
            yield Finding("problem", text, f"Remove {folder.codes} and train again.")
            return
    yield Finding("good", f"the codes belong to the autoencoder ({autoencoder})")
    paths, info = complete_shards(folder.codes, "train", autoencoder)
    for path in paths:
        read_shard(path, info.grids)  # raises for a damaged file; one file in memory at a time
    codes = read_codes(folder.codes, "validation", autoencoder)
    for level, usage in enumerate(count_codes(codes)):
        yield judge_usage(level, usage, len(codes.levels[level]))


def count_codes(codes: CodesInMemory) -> list[CodeUsage]:
    """How often each code of each level occurs."""
    usages = [CodeUsage.of(grid.num_codes) for grid in codes.info.grids]
    for usage, maps in zip(usages, codes.levels, strict=True):
        usage.add(torch.from_numpy(maps.astype("int64")))
    return usages


def judge_usage(level: int, usage: CodeUsage, num_images: int) -> Finding:
    """Whether a level uses its codebook, by the codes of all validation images."""
    total = len(usage.counts)
    entropy = log(usage.perplexity) / log(total)
    text = (
        f"level {level} uses {usage.used} of {total} codes on all "
        f"{counted(num_images, 'validation image')}, perplexity {usage.perplexity:.0f}"
    )
    restart = f"--autoencoder.model.codebooks.{level}.revive-below"
    if entropy < MIN_ENTROPY:
        return Finding(
            "problem",
            f"{text}: the codebook has collapsed",
            f"Raise {restart} to restart unused codes, and --autoencoder.level-dropout.",
        )
    if usage.counts.sum() < POSITIONS_PER_CODE * total:
        advice = "Too few validation images to judge the codebook; use more."
        return Finding("warning", text, advice)
    if usage.share_used < 1 - MAX_UNUSED:
        advice = f"Raise {restart}, or use fewer codes."
        return Finding("warning", f"{text}: {total - usage.used} are unused", advice)
    return Finding("good", text)


def judge_prior(level: int, nats: Sequence[float], metrics: Measurement) -> Finding:
    """Whether a prior has learnt, and does not overfit.

    Arguments:
        level: Its level.
        nats: Nats per code at each validation.
        metrics: Of the last evaluation.
    """
    best, last = min(nats), nats[-1]
    text = f"prior of level {level}: {best:.3f} nats per code at its best validation"
    if best < MIN_NATS:
        return Finding(
            "problem",
            f"{text}, suspiciously near 0",
            f"Level {level} has probably collapsed: its codes contain no information.",
        )
    gap = metrics.levels("gap_nats_per_code")
    if level < len(gap):
        train = metrics.levels("train_nats_per_code")[level]
        text += (
            f"; at the last evaluation {train + gap[level]:.3f} on "
            f"{counted(metrics.num_images, 'validation image')} and {train:.3f} on "
            "training images"
        )
        if gap[level] > MAX_OVERFIT * train:
            advice = "Use more images, more dropout or a smaller prior. The best step is kept."
            return Finding("warning", f"{text}: overfitted", advice)
    if last > best * MAX_RISE:
        text += f"; {last:.3f} at the end of training"
        return Finding("warning", text, "Use fewer steps or more dropout. The best step is kept.")
    return Finding("good", text)


def check_samples(
    folder: RunFolder, models: tuple[str, ...] | None, num_classes: int
) -> Iterator[Finding]:
    """Whether the metrics of samples belong to the models, and are reliable.

    Arguments:
        folder: The run.
        models: Fingerprints of its models; None if they cannot be read.
        num_classes: 1 without classes.
    """
    metrics = folder.read_metrics()
    for name, option, origin in metrics.sample_provenance():
        if models is not None and origin.models != models:
            advice = f"Measure again: `vqvae2 evaluate {folder.path} {option} ...`."
            yield Finding("warning", f"the {name} belongs to other weights", advice)
    for extractor, samples in metrics.samples.items():
        yield judge_extractor(extractor, samples, num_classes)


def judge_extractor(extractor: str, metrics: SampleMetrics, num_classes: int) -> Finding:
    """Whether an extractor knows the classes and has enough images."""
    num_images, num_features = metrics.num_samples, metrics.num_features
    accuracy, chance = metrics.validation.get("class_accuracy"), 1 / num_classes
    text = f"samples were measured with {extractor} on {num_images:,} images"
    if accuracy is not None and accuracy < chance + MIN_ACCURACY * (1 - chance):
        return Finding(
            "problem",
            f"{text}, but it recognises the class of only {100 * accuracy:.0f} % of the "
            "validation images",
            "It was trained on other classes, on another order of the classes or on other "
            "images: its inception score and its selection of samples are meaningless. Use a "
            "network of these classes, or --extractor own.",
        )
    minimum = IMAGES_PER_FEATURE * num_features
    if num_images < minimum:
        return Finding(
            "warning",
            f"{text}, too few for its {num_features:,} features: FID-{extractor} is too high and "
            "depends on their number",
            f"Use KID-{extractor}, which does not, or measure at least {minimum:,} images.",
        )
    return Finding("good", text)
