"""Says in words whether a run is healthy, and what to do where it is not.

Reads what the run folder holds (logs, metrics, models, codes); it trains and measures nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from vqvae2.data.codes import complete_shards, read_codes, read_info, read_shard
from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training import checkpoint
from vqvae2.training.stage import is_saved
from vqvae2.training.stages import stages
from vqvae2.weights import code_fingerprint, load_autoencoder, load_prior

COLLAPSED = 0.4  # a level whose codes carry less than this part of log K is collapsed
UNUSED = 0.10  # a larger share of codes that never occur is worth a word
SUSPICIOUS_NATS = 0.05  # a prior this sure of its codes has nothing to predict
OVERFITTED = 0.10  # validation nats above training nats by this part of them
CARRIES = 1.2  # blanking a level that matters multiplies the error by at least this
ABOVE_CHANCE = 0.2  # an extractor that knows the classes is right at least so much more often
FEW_A_FEATURE = 2  # images a feature, below which FID is mostly bias


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Arguments:
        verdict: "good", "watch" or "bad".
        what: the figure in words.
        advice: what to do; "" when good.
    """

    verdict: Literal["good", "watch", "bad"]
    what: str
    advice: str = ""


def diagnose(folder: RunFolder) -> list[Finding]:
    """Everything that the run folder lets us say, from images to priors."""
    run, known, models = folder.read(), None, None
    findings = [*look_at_checkpoints(folder, run), *look_at_levels(folder)]
    try:
        if is_saved(folder.autoencoder):
            known = code_fingerprint(load_autoencoder(folder.model / "autoencoder"))
            findings += look_at_codes(folder, run, known)
    except ValueError as error:
        advice = "Remove what is damaged and repeat `vqvae2 train`: it is made again."
        findings.append(Finding("bad", str(error), advice))
    findings += look_at_priors(folder, run, known)
    if is_saved(folder.autoencoder):
        try:
            models = fingerprints(Pipeline.open(folder.path))
        except ValueError as error:
            if all(str(error) != finding.what for finding in findings):
                advice = f"Remove {folder.model} and train again."
                findings.append(Finding("bad", str(error), advice))
    return [*findings, *look_at_samples(folder, models)]


def look_at_checkpoints(folder: RunFolder, run: RunConfig) -> Iterator[Finding]:
    """Whether every stage has come to its end, and its files are whole."""
    for stage in stages(run):
        if stage.training is None:
            continue
        steps = stage.training.steps
        if stage.done(folder):
            yield Finding("good", f"{stage.title} is done: {steps} steps")
            continue
        saved, damaged = checkpoint.latest(folder.checkpoints(stage.name))
        for problem in damaged.values():
            yield Finding("bad", problem, "Training goes on from the checkpoint before it.")
        what = f"{stage.title} is at step {saved.step if saved else 0} of {steps}"
        yield Finding("watch", what, f"To go on: vqvae2 train --run {folder.path}")


def look_at_levels(folder: RunFolder) -> Iterator[Finding]:
    """Whether each level's codes are at work, by the last look at validation images."""
    looks = folder.log("autoencoder").read("validation")
    if not looks:
        return
    last, level = looks[-1], 0
    blanked = [v for name, v in last.items() if name.startswith("mse_level_blanked.")]
    if blanked and max(blanked) < CARRIES * last["mse"]:
        what = "blanking any level hardly changes the error: the decoder ignores its codes"
        yield Finding("bad", what, "Train stage 1 for longer, or with a smaller learning rate.")
        return
    while f"mse_level_blanked.{level}" in last:
        ratio = last[f"mse_level_blanked.{level}"] / last["mse"]
        what = f"blanking level {level} multiplies the error by {ratio:.1f}"
        if ratio < CARRIES:
            advice = "The other levels explain the image alone; raise autoencoder.level_dropout."
            yield Finding("bad" if ratio < 1.02 else "watch", what, advice)
        else:
            yield Finding("good", what)
        level += 1


def look_at_codes(folder: RunFolder, run: RunConfig, known: str) -> Iterator[Finding]:
    """Whether the codes are those of the autoencoder, and how many are in use."""
    if not any(folder.codes.glob("validation-*.parquet")):
        return
    for shard in sorted(folder.codes.glob("*.parquet")):
        made_by = read_info(shard).autoencoder
        if made_by != known:
            what = f"{shard.name} was made by autoencoder {made_by}, the model is {known}"
            yield Finding("bad", what, f"Remove {folder.codes} and train again.")
            return
    yield Finding("good", f"codes and autoencoder belong together ({known})")
    paths, info = complete_shards(folder.codes, "train", known)
    for path in paths:
        read_shard(path, info.grids)  # one at a time: only whether they are whole
    codes = read_codes(folder.codes, "validation", known)
    for level, (maps, grid) in enumerate(zip(codes.levels, codes.info.grids, strict=True)):
        usage = CodeUsage.of(grid.num_codes)
        usage.add(torch.from_numpy(maps.astype("int64")))
        yield judge_usage(level, usage, enough=maps.size >= 4 * grid.num_codes)


def judge_usage(level: int, usage: CodeUsage, enough: bool) -> Finding:
    """What a level's usage over the validation images means."""
    total = len(usage.counts)
    entropy = torch.log(torch.tensor(usage.perplexity)) / torch.log(torch.tensor(float(total)))
    what = (
        f"level {level} uses {usage.used} of {total} codes on validation images, perplexity "
        f"{usage.perplexity:.0f}"
    )
    if entropy < COLLAPSED:
        return Finding(
            "bad",
            f"{what}: it has collapsed",
            "Use codes started from data and revival (codebooks.revive_below), and raise "
            "autoencoder.level_dropout.",
        )
    if not enough:
        advice = "Too few validation images to judge; hold out more."
        return Finding("watch", what, advice)
    if usage.share_used < 1 - UNUSED:
        advice = "Raise codebooks.revive_below, or use fewer codes."
        return Finding("watch", f"{what}: {total - usage.used} are dead", advice)
    return Finding("good", what)


def look_at_priors(folder: RunFolder, run: RunConfig, known: str | None) -> Iterator[Finding]:
    """Whether each prior learnt, without learning the training set by heart."""
    metrics = folder.read_metrics().priors or Measurement(0)
    for level in range(len(run.levels)):
        if known and is_saved(folder.prior(level)):
            path = folder.model / "priors" / str(level)
            try:
                load_prior(path, known)
            except ValueError as error:
                yield Finding("bad", str(error), f"Remove {path} and train again.")
                continue
        looks = folder.log(f"prior{level}").read("validation")
        if looks:
            yield judge_prior(level, looks, metrics)


def judge_prior(level: int, looks: list[dict[str, float]], metrics: Measurement) -> Finding:
    """What a prior's validation nats mean."""
    nats = [look["nats_per_code"] for look in looks]
    best, last = min(nats), nats[-1]
    what = f"prior of level {level}: {best:.3f} nats per code held out"
    if best < SUSPICIOUS_NATS:
        return Finding(
            "bad",
            f"{what}, suspiciously near 0",
            f"Level {level} has probably collapsed: its codes say nothing that must be predicted.",
        )
    gap = metrics.levels("gap_nats_per_code")
    if level < len(gap):
        seen = metrics.levels("train_nats_per_code")[level]
        what += f", {seen:.3f} in training"
        if gap[level] > OVERFITTED * seen:
            advice = "More images, more dropout, or a smaller prior; the best step was kept."
            return Finding("watch", f"{what}: overfitted", advice)
    if last > best * 1.01:
        rises = f"{what}; it rose to {last:.3f} by the end"
        return Finding("watch", rises, "Fewer steps or more dropout; the best step was kept.")
    return Finding("good", what)


def look_at_samples(folder: RunFolder, models: list[str] | None) -> Iterator[Finding]:
    """Whether the figures of samples can be believed, by what each network was shown."""
    num_classes = max(1, len(summary.class_names)) if (summary := folder.read_data()) else 1
    metrics = folder.read_metrics()
    for what, option, origin in metrics.sample_provenance():
        if models is not None and list(origin.models) != models:
            again = f"Measure again: vqvae2 evaluate {folder.path} {option} ..."
            yield Finding("watch", f"{what} is of other weights", again)
    for name, samples in metrics.samples.items():
        yield judge_extractor(name, samples, num_classes)


def judge_extractor(name: str, metrics: SampleMetrics, num_classes: int) -> Finding:
    """What an extractor's metrics are worth."""
    count, features = metrics.validation.num_images, metrics.num_features
    known = metrics.validation.get("class_accuracy")
    what = f"samples were measured with {name} over {count:,} images"
    chance = 1 / num_classes
    if known is not None and known < chance + ABOVE_CHANCE * (1 - chance):
        return Finding(
            "bad",
            f"{what}, but it recognises only {100 * known:.0f} % of the validation images",
            "It knows other classes, another order of them, or another kind of images: its "
            "inception score and what it rejects mean nothing. Give a network of these classes, "
            "or own.",
        )
    if count < FEW_A_FEATURE * features:
        return Finding(
            "watch",
            f"{what}, few for its {features:,} features: FID-{name} is too high and depends on "
            "their number",
            f"Look at KID-{name}, which does not, or measure at least "
            f"{FEW_A_FEATURE * features:,} images.",
        )
    return Finding("good", what)
