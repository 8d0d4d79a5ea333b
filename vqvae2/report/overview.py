"""The top of the report: facts about the run and its most important metrics."""

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log

import torch

import vqvae2
from vqvae2.code_grid import CodeGrid
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import Measurement
from vqvae2.report.blocks import LOSSLESS_SIDE
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource, Unavailable


@dataclass(frozen=True)
class Head:
    """The title of the page, and how its images are displayed.

    Arguments:
        name: Name of the run folder.
        facts: What was trained on what.
        side: Displayed side of an image, CSS pixels.
        large_side: Displayed side of a reconstruction, CSS pixels.
        is_jpeg: Whether images are stored with losses.
    """

    name: str
    facts: dict[str, str]
    side: int
    large_side: int
    is_jpeg: bool


@dataclass(frozen=True)
class Card:
    """A metric with its unit and a note; with a share in [0, 1] it has a bar."""

    label: str
    value: str
    unit: str
    note: str
    share: float | None = None


@dataclass(frozen=True)
class Summary:
    """The metrics that summarise a run.

    Arguments:
        cards: Metrics of the run.
        levels: Name and metrics of each level, coarsest first.
        note: What is missing or outdated; "" if nothing is.
    """

    cards: list[Card]
    levels: list[tuple[str, list[Card]]]
    note: str


def head(source: ReportSource) -> Head:
    """The title of the page."""
    config, size = source.config, source.config.data.size
    python = platform.python_version()
    facts = {
        "preset": config.preset,
        "data": config.data.source,
        "images": f"{size}x{size}",
        "codes": "none" if config.on_pixels else "; ".join(map(str, source.grids)),
        "classes": str(config.num_classes) if config.num_classes > 1 else "none",
        "seed": str(config.seed),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": f"vqvae2 {vqvae2.__version__}, torch {torch.__version__}, Python {python}",
    }
    return Head(
        source.folder.path.resolve().name,
        facts,
        # Integer factors: every pixel of a small image is a square.
        side=size * max(1, round(96 / size)),
        large_side=size * max(1, 128 // size),
        is_jpeg=size > LOSSLESS_SIDE,
    )


def summary(source: ReportSource) -> Summary:
    """The metrics that summarise the run; a sentence alone where there are none."""
    try:
        source.require_codes()
        reconstruction = source.metrics.reconstruction
        if reconstruction is None:
            command = source.command("evaluate")
            raise Unavailable(f"Reconstructions were not measured yet: {command}.")
    except ValueError as error:
        return Summary([], [], str(error))
    levels = [
        (
            f"Level {level}, {grid.height}x{grid.width} codes",
            [usage_card(level, grid, reconstruction), nats_card(level, grid, source.priors)],
        )
        for level, grid in enumerate(source.grids)
    ]
    cards = [*reconstruction_cards(reconstruction), rate_card(source)]
    return Summary(cards, levels, source.outdated_metrics())


def reconstruction_cards(measurement: Measurement) -> list[Card]:
    """The quality of reconstructions."""
    images = f"{measurement.num_images:,} validation images"
    notes = {
        "mse": f"images in [0, 1], {images}",
        "psnr_db": "computed from the MSE",
        "ssim": "1 is identical",
    }
    return [
        Card(
            METRICS[name].name,
            format_metric(name, measurement.get(name)),
            METRICS[name].unit,
            note,
        )
        for name, note in notes.items()
    ]


def rate_card(source: ReportSource) -> Card:
    """Bits per image dimension: under the priors if they are measured, else uncompressed."""
    dimensions = source.config.autoencoder.model.image_channels * source.config.data.size**2
    fixed = f"{sum(grid.bits for grid in source.grids) / dimensions:.3f}"
    bits = source.priors.get("validation_bits_per_dim")
    if bits is None:
        return Card("Bits per dimension", fixed, "", "rate of the codes at a fixed code length")
    note = f"rate of the codes under the priors; {fixed} at a fixed code length"
    return Card("Bits per dimension", f"{bits:.3f}", "", note)


def usage_card(level: int, grid: CodeGrid, measurement: Measurement) -> Card:
    """The codes of a level that occur in validation images."""
    perplexity = format_number(measurement.levels("perplexity")[level], 3)
    return Card(
        "",
        f"{measurement.levels('codes_used')[level]:.0f}",
        f"of {grid.num_codes} codes used",
        f"perplexity {perplexity}",
        measurement.levels("share_used")[level],
    )


def nats_card(level: int, grid: CodeGrid, priors: Measurement) -> Card:
    """The nats per code of a level under its prior."""
    nats, uniform = priors.levels("validation_nats_per_code"), log(grid.num_codes)
    if level >= len(nats):
        return Card("", "", "nats per code not measured", "")
    note = f"{uniform:.3f} if all codes were equally likely"
    return Card("", f"{nats[level]:.3f}", "nats per code", note, min(1, nats[level] / uniform))
