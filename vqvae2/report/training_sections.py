"""The sections of the report about training: curves, and the codes in use."""

from vqvae2.report import plots
from vqvae2.report.blocks import Block, Curve, Plots, Text, curve
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource, Unavailable
from vqvae2.training.autoencoder import AutoencoderStage
from vqvae2.training.prior import PriorStage
from vqvae2.training.stage import Stage
from vqvae2.training.stages import stages


def codebooks(source: ReportSource) -> list[Block]:
    """How often the codes of each level occur in validation images."""
    text = (
        "The frequency of each code in all validation images. A flat curve means that the codes "
        "are used evenly; codes in the shaded part are never used."
    )
    curves = [
        curve(
            f"Level {level}",
            plots.codebook_plot(usage, level),
            f"{format_number(usage.used)} of {format_number(len(usage.counts))} codes used, "
            f"perplexity {format_number(usage.perplexity)}, "
            f"{format_number(int(usage.counts.sum()))} positions counted",
            level,
        )
        for level, usage in enumerate(source.usage)
    ]
    return [Text(text), Plots(curves)]


def training(source: ReportSource) -> list[Block]:
    """The curves of every stage that has begun."""
    curves: list[Curve] = []
    for stage in stages(source.config):
        if isinstance(stage, AutoencoderStage):
            curves += autoencoder_curves(source, stage)
        elif isinstance(stage, PriorStage):
            curves += prior_curves(source, stage)
    if not curves:
        raise Unavailable(f"Training has not begun: {source.command('train --run')}.")
    text = "Metrics of validation images are measured with the averaged weights."
    if not source.config.on_pixels and source.config.autoencoder.continuous_steps:
        text += " The shaded first steps are trained without quantisation."
    return [Text(text), Plots(curves)]


def autoencoder_curves(source: ReportSource, stage: AutoencoderStage) -> list[Curve]:
    """The error of the autoencoder, and the perplexity of its codes."""
    train, validation = read_log(source, stage)
    curves = []
    if train or validation:
        steps = stage.config.continuous_steps
        plot = plots.distortion_plot(train, validation, source.num_levels, steps)
        curves.append(curve("Autoencoder: reconstruction error", plot, speed(source, stage)))
    if validation:
        plot = plots.usage_plot(validation, [grid.num_codes for grid in source.grids])
        curves.append(curve("Autoencoder: perplexity of the codes", plot))
    return curves


def prior_curves(source: ReportSource, stage: PriorStage) -> list[Curve]:
    """The nats per code of a prior."""
    train, validation = read_log(source, stage)
    if not train and not validation:
        return []
    num_codes = source.grids[stage.level].num_codes
    plot = plots.prior_plot(train, validation, stage.level, num_codes)
    return [curve(f"Prior of level {stage.level}", plot, speed(source, stage))]


def read_log(
    source: ReportSource, stage: Stage
) -> tuple[list[plots.LogLine], list[plots.LogLine]]:
    """The metrics that a stage logged on training and on validation images."""
    log = source.folder.log(stage.name)
    return log.read("train"), log.read("validation")


def speed(source: ReportSource, stage: Stage) -> str:
    """The last training speed of a stage; "" if none was logged."""
    rates = [line["examples_per_second"] for line in source.folder.log(stage.name).read_timing()]
    return f"{format_number(rates[-1], digits=3)} images/s" if rates else ""
