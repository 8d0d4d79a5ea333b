"""What the report is written in: figures, draws and images as the page shows them."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.sampling import SamplingConfig

LOSSLESS_SIDE = 64  # larger images are stored as JPEG, to keep the file small


@dataclass(frozen=True)
class Image:
    """A image inside the page: a data URI and the words that stand for it."""

    source: str
    text: str


@dataclass(frozen=True)
class Row:
    """Images side by side under a name; `level` colours it, -1 does not."""

    name: str
    images: list[Image]
    level: int = -1


def figure(value: Any, digits: int = 4) -> str:
    """A value as people read it: 0.004812, 22.3, 12,345; a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, list):
        return ", ".join(figure(item, digits) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == value and abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    if 10**digits <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def say(draw: SamplingConfig) -> str:
    """How codes are drawn, in words."""
    words = [f"temperature {draw.temperature:g}"]
    words += [] if draw.top_k is None else [f"top-k {draw.top_k}"]
    words += [] if draw.top_p == 1 else [f"top-p {draw.top_p:g}"]
    return ", ".join(words) + (", all codes" if len(words) == 1 and draw.temperature else "")


def row(name: str, images: Tensor, level: int = -1) -> Row:
    """Images (B, C, H, W) in [0, 1] under a name."""
    embedded_images = [
        embedded_image(image, f"{name} {number}".strip()) for number, image in enumerate(images)
    ]
    return Row(name, embedded_images, level)


def embedded_image(image: Tensor, text: str) -> Image:
    """A image (C, H, W) in [0, 1] as a data URI: PNG if small, JPEG of high quality if not."""
    pixels = to_pil(image)
    if max(pixels.size) <= LOSSLESS_SIDE:
        kind, data = "png", png(pixels)
    else:
        buffer = io.BytesIO()
        pixels.save(buffer, "JPEG", quality=92, subsampling=0)
        kind, data = "jpeg", buffer.getvalue()
    return Image(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", text)


def stored(path: Path, text: str) -> Image:
    """A PNG file as a data URI."""
    return Image(f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", text)


def safe(svg: str) -> Any:
    """Marks one of our own plots as safe: matplotlib escapes what text of users is in it."""
    from markupsafe import Markup

    return Markup(svg)


def distance_table(name: str, sets: Mapping[str, Measurement]) -> list[list[str]]:
    """Metrics of sets of images: the head, then one row per set; without empty columns.

    Arguments:
        name: of the feature extractor.
        sets: the metrics of each set under its title.
    """
    columns = [
        key
        for key, metric in METRICS.items()
        if metric.in_tables and any(one.get(key) is not None for one in sets.values())
    ]
    rows = [
        [title, *("" if one.get(key) is None else format_metric(key, one[key]) for key in columns)]
        for title, one in sets.items()
    ]
    return [["set", *(METRICS[key].title(name) for key in columns)], *rows]


def percent(share: float | None) -> str:
    """A share in percent."""
    return format_metric("accuracy", share)


def quality_sets(metrics: SampleMetrics) -> dict[str, Measurement]:
    """The sets of an extractor's metrics in the order of a table, by their titles."""
    selected = {
        "samples" if fraction == "1" else f"best {100 * float(fraction):g} % of samples": one
        for fraction, one in metrics.by_fraction.items()
    }
    others = {
        f"samples at temperature {temperature}": one
        for temperature, one in metrics.by_temperature.items()
    }
    images = {
        "validation images": metrics.validation,
        "reconstructions": metrics.reconstructions,
    }
    return {**images, **selected, **others}


def about_quality(name: str, metrics: SampleMetrics) -> str:
    """A sentence about what the table of an extractor's metrics does not say."""
    distance = format_metric(
        "fid_against_originals", metrics.reconstructions.get("fid_against_originals")
    )
    said = (
        f"FID* is the distance to reconstructions instead of images; reconstructions are at "
        f"FID-{name} {distance} from their own originals."
    )
    rejected = any(fraction != "1" for fraction in metrics.by_fraction)
    return f"{said} Fractions are chosen by {metrics.selector}." if rejected else said
