"""The top of the report: facts about the run and its most important metrics."""

import platform
from datetime import UTC, datetime
from math import log

import torch

import vqvae2
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import Measurement
from vqvae2.report.blocks import Block, Card, Cards, Facts, Metric
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource


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
    return [
        Cards([*reconstruction_cards(reconstruction), rate_card(source)]),
        Cards([level_card(source, level, reconstruction) for level in range(len(source.grids))]),
        *source.outdated_metrics(),
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
