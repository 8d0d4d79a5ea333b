"""The sections of the report about training: curves, and the codes in use."""

from collections.abc import Sequence

from vqvae2.metrics.describe import METRICS
from vqvae2.report import plots
from vqvae2.report.blocks import Block, Curve, Plots, Text
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource
from vqvae2.runs.log import LogLine
from vqvae2.training.autoencoder import AutoencoderStage
from vqvae2.training.prior import PriorStage
from vqvae2.training.stages import stages


def codebooks(source: ReportSource) -> list[Block]:
    """How often the codes of each level occur in validation images."""
    text = (
        "The frequency of each code in all validation images. A flat curve means that the codes "
        "are used evenly; codes in the shaded part are never used. Perplexity is the number of "
        "equally likely codes that would be as hard to guess."
    )
    curves = [
        Curve(
            f"Level {level}",
            plots.codebook_plot(usage, level),
            f"{usage.used:,} of {len(usage.counts):,} codes used, perplexity "
            f"{format_number(usage.perplexity)}, {int(usage.counts.sum()):,} positions counted",
            level,
        )
        for level, usage in enumerate(source.usage)
    ]
    return [Text(text), Plots(curves)]


def training(source: ReportSource) -> list[Block]:
    """The curves of every stage that has begun."""
    curves: list[Curve] = []
    for stage in stages(source.config):
        log = source.folder.log(stage.name)
        train, validation, timing = log.read("train"), log.read("validation"), log.read_timing()
        rate = format_number(timing[-1]["examples_per_second"], digits=3) if timing else ""
        speed = f"{rate} images/s" if timing else ""
        if not train and not validation:
            continue
        if isinstance(stage, AutoencoderStage):
            steps = stage.config.continuous_steps
            plot = plots.distortion_plot(train, validation, len(source.grids), steps)
            curves.append(Curve("Autoencoder: reconstruction error", plot, speed))
            plot = plots.usage_plot(validation, [grid.num_codes for grid in source.grids])
            curves.append(Curve("Autoencoder: perplexity of the codes", plot))
        elif isinstance(stage, PriorStage):
            num_codes = source.grids[stage.level].num_codes
            plot = plots.prior_plot(train, validation, stage.level, num_codes)
            curves.append(Curve(f"Prior of level {stage.level}", plot, speed))
        else:
            curves += logged_curves(stage.title.capitalize(), train, validation)
    if not curves:
        raise ValueError(f"Training has not begun: {source.command('train --run')}.")
    text = "Metrics of validation images are measured with the averaged weights."
    if not source.config.on_pixels and source.config.autoencoder.continuous_steps:
        text += " The shaded first steps are trained without quantisation."
    return [Text(text), Plots(curves)]


def logged_curves(
    title: str, train: Sequence[LogLine], validation: Sequence[LogLine]
) -> list[Curve]:
    """One plot per metric that a stage logs; some metrics begin later than the others."""
    names = dict.fromkeys(name for lines in (train, validation) for line in lines for name in line)
    return [
        Curve(
            f"{title}: {METRICS[name].name if name in METRICS else name.replace('_', ' ')}",
            plots.log_plot(train, validation, name),
            METRICS[name].explanation if name in METRICS else "",
        )
        for name in names
        if name not in ("step", "num_images") and not name.startswith("gradient_norm")
    ]
