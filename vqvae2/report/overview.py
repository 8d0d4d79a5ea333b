"""The top of the report: verdict, images, time and settings; and the most important metrics."""

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from math import log

import torch

import vqvae2
from vqvae2.messages import counted, duration
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import Measurement
from vqvae2.report.blocks import Block, Card, Cards, Facts, Findings, Metric, Text
from vqvae2.report.formatting import format_number
from vqvae2.report.image_sections import reconstruction_gallery, sample_gallery
from vqvae2.report.source import ReportSource
from vqvae2.report.tables import Table
from vqvae2.report.verdict import verdict
from vqvae2.runs.log import LogLine
from vqvae2.training.stages import stages


def lead(source: ReportSource) -> str:
    """What the run is, in a sentence."""
    config, data = source.config, source.folder.read_data()
    size = f"{config.data.size}x{config.data.size} pixels"
    images = f"images of {size}"
    if data is not None:
        images = f"{counted(data.num_train, 'image')} of {size}"
        if data.class_names:
            images += f" in {counted(len(data.class_names), 'class', 'classes')}"
    if config.on_pixels:
        return f"A prior on pixels for {images}."
    maps = " + ".join(f"{grid.height}x{grid.width}" for grid in source.grids)
    return f"A VQ-VAE-2 for {images}. It describes each image by {maps} codes."


def top(source: ReportSource) -> list[Block]:
    """Images that the run has made, and the verdict."""
    gallery = sample_gallery if source.has_priors else reconstruction_gallery
    try:
        images = gallery(source)
    except ValueError:
        images = []  # nothing is trained; the verdict says so
    return [*images, Findings(verdict(source))]


def settings(source: ReportSource) -> list[Block]:
    """The time that each stage took, and the most important settings."""
    return [times(source), facts(source)]


def times(source: ReportSource) -> Table:
    """The steps of each stage and the time that they took."""
    rows, total, folder = [], 0.0, source.folder
    for stage in stages(source.config):
        steps = time = speed = ""
        state = "done" if stage.done(folder) else "not begun"
        if (training := stage.training) is not None:
            lines = folder.log(stage.name).read_timing()
            seconds = training_seconds(lines, training.batch)
            last = int(lines[-1]["step"]) if lines else 0
            total += seconds
            steps = f"{last:,} of {training.steps:,}" if last < training.steps else f"{last:,}"
            time = duration(seconds) if lines else ""
            speed = f"{format_number(lines[-1]['examples_per_second'], 3)}" if lines else ""
            if lines and state != "done":
                state = "begun"
        rows.append([stage.title.capitalize(), state, steps, time, speed])
    rows.append(["All steps", "", "", duration(total), ""])
    note = "The time of training steps, without validation, starting and stopping."
    return Table("Time and settings", ["", "state", "steps", "time", "images/s"], rows, note)


def training_seconds(lines: Sequence[LogLine], batch: int) -> float:
    """The time of the training steps of a stage, by the log of its speeds."""
    steps = [0.0, *(line["step"] for line in lines)]
    return sum(
        (line["step"] - before) * batch / line["examples_per_second"]
        for before, line in zip(steps, lines, strict=False)
        if line["examples_per_second"] > 0
    )


def facts(source: ReportSource) -> Facts:
    """What was trained on what."""
    config = source.config
    python = platform.python_version()
    return Facts(
        {
            "preset": config.preset,
            "data": config.data.source,
            "images": f"{config.data.size}x{config.data.size}",
            "codes": "none" if config.on_pixels else "; ".join(map(str, source.grids)),
            "classes": str(config.num_classes) if config.num_classes > 1 else "none",
            "seed": str(config.seed),
            "date": datetime.now(UTC).date().isoformat(),
            "versions": f"vqvae2 {vqvae2.__version__}, torch {torch.__version__}, Python {python}",
        }
    )


def summary(source: ReportSource) -> list[Block]:
    """The metrics that summarise the run: of all levels, then of each level."""
    source.require_codes()
    reconstruction = source.metrics.reconstruction
    if reconstruction is None:
        command = source.command("evaluate")
        raise ValueError(f"Reconstructions were not measured yet: {command}.")
    counted_images = source.validation_count(reconstruction.num_images)
    return [
        *source.outdated_metrics(),
        Text(
            f"Measured on {counted_images}, with the plain decoder. The levels are the maps of "
            "codes, level 0 the coarsest."
        ),
        Cards([*reconstruction_cards(reconstruction), rate_card(source)]),
        Cards([level_card(source, level, reconstruction) for level in range(len(source.grids))]),
    ]


def reconstruction_cards(measurement: Measurement) -> list[Card]:
    """The quality of reconstructions."""
    cards = []
    for name in ("mse", "psnr_db", "ssim"):
        metric, value = METRICS[name], format_metric(name, measurement.get(name))
        cards.append(Card(metric.name, [Metric(value, metric.unit, metric.explanation)]))
    return cards


def rate_card(source: ReportSource) -> Card:
    """Bits per image dimension: under the priors if they are measured, else uncompressed."""
    dimensions = source.config.autoencoder.model.image_channels * source.config.data.size**2
    value = fixed = f"{sum(grid.bits for grid in source.grids) / dimensions:.3f}"
    note = "rate of the codes at a fixed code length"
    bits = source.priors.get("validation_bits_per_dim")
    if bits is not None:
        value = f"{bits:.3f}"
        note = f"rate of the codes under the priors; {fixed} at a fixed code length"
    return Card("Bits per dimension", [Metric(value, "", note)])


def level_card(source: ReportSource, level: int, reconstruction: Measurement) -> Card:
    """The use of a level's codes, and the nats per code under its prior."""
    grid = source.grids[level]
    used, share, perplexity = (
        reconstruction.levels(name)[level] for name in ("codes_used", "share_used", "perplexity")
    )
    note = f"perplexity {format_number(perplexity, 3)}"
    usage = Metric(f"{used:.0f}", f"of {grid.num_codes} codes used", note, share)
    rate = Metric("", "nats per code not measured", "")
    nats, uniform = source.priors.levels("validation_nats_per_code"), log(grid.num_codes)
    if level < len(nats):
        note = f"{uniform:.3f} if all codes were equally likely"
        rate = Metric(f"{nats[level]:.3f}", "nats per code", note, min(1, nats[level] / uniform))
    return Card(f"Level {level}, {grid.height}x{grid.width} codes", [usage, rate], level)
