"""What the report is written in: figures, draws and images as the page shows them."""

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png
from vqvae2.sampling import SamplingConfig

LOSSLESS_SIDE = 64  # larger images are stored as JPEG, to keep the file small

MEANINGS = {
    "reconstruction.num_images": "validation images measured",
    "reconstruction.mse": "mean squared error, images in [0, 1]",
    "reconstruction.mse_over_variance": "MSE / variance of the pixels",
    "reconstruction.psnr_db": "peak signal-to-noise ratio of that MSE, dB",
    "reconstruction.ssim": "structural similarity, 1 is identical",
    "reconstruction.ms_ssim": "the same over five scales, for images of 176 pixels and more",
    "reconstruction.mse_level_alone": "MSE when the decoder sees one level alone",
    "reconstruction.mse_level_blanked": "MSE when one level is blanked",
    "reconstruction.codes_used": "codes that occur",
    "reconstruction.share_used": "the same as a part of K",
    "reconstruction.perplexity": "as many equally likely codes would say as much",
    "priors.validation_nats_per_code": "of validation images, lower is better",
    "priors.train_nats_per_code": "of training images",
    "priors.gap_nats_per_code": "held out minus training: how much was learnt by heart",
    "priors.parameters": "of each prior",
    "priors.validation_bits_per_dim": "bits per image value: rate of the codes; of pixels, theirs",
    "priors.validation_bits_per_dim_level": "the same, level by level",
}
"""What the figures of metrics.json are; others are shown without a word."""


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


def flatten(values: Mapping[str, Any], *above: str) -> list[tuple[tuple[str, ...], Any]]:
    """All values of nested objects with the path of names to each."""
    found: list[tuple[tuple[str, ...], Any]] = []
    for name, value in values.items():
        inner = isinstance(value, Mapping)
        found += flatten(value, *above, name) if inner else [((*above, name), value)]
    return found


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


def distance_table(name: str, sets: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Distances of sets by one network: the head, then a row a set; without empty columns.

    Arguments:
        name: of the network; its distances carry it.
        sets: the figures of each set under its title.
    """
    forms: dict[str, tuple[str, Callable[[Any], str]]] = {
        "fid": (f"FID-{name}", "{:.2f}".format),
        "kid": (f"KID-{name} x 1000", lambda value: f"{1000 * value:.2f}"),
        "kid_deviation": ("±", lambda value: f"{1000 * value:.2f}"),
        "inception_score": (f"IS-{name}", "{:.2f}".format),
        "precision": ("precision", "{:.3f}".format),
        "recall": ("recall", "{:.3f}".format),
        "fid_against_reconstructions": (f"FID*-{name}", "{:.2f}".format),
        "recognised": ("recognised", percent),
        "accuracy_score": ("CAS", percent),
    }
    shown = [key for key in forms if any(seen.get(key) is not None for seen in sets.values())]
    rows = [
        [title, *("" if seen.get(key) is None else forms[key][1](seen[key]) for key in shown)]
        for title, seen in sets.items()
    ]
    return [["set", *(forms[key][0] for key in shown)], *rows]


def percent(share: float | None) -> str:
    """A share as people read it."""
    return "\N{EN DASH}" if share is None else f"{100 * share:.1f} %"


def quality_sets(figures: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The sets of a network's figures in the order of a table, by their titles."""
    kept = {
        "samples" if fraction == "1" else f"best {100 * float(fraction):g} % of samples": found
        for fraction, found in figures["samples_by_kept_fraction"].items()
    }
    others = {
        f"samples at temperature {temperature}": found
        for temperature, found in figures["samples_by_temperature"].items()
    }
    images_ = {
        "validation images": figures["validation"],
        "reconstructions": figures["reconstructions"],
    }
    return {**images_, **kept, **others}


def about_quality(name: str, figures: Mapping[str, Any]) -> str:
    """A sentence about what the table of a network's figures does not say."""
    own = figures["reconstructions"]["fid_against_originals"]
    said = (
        f"FID* is the distance to reconstructions instead of images; reconstructions are at "
        f"FID-{name} {own:.2f} from their own originals."
    )
    rejected = any(fraction != "1" for fraction in figures["samples_by_kept_fraction"])
    return f"{said} Fractions are chosen by {figures['judge']['name']}." if rejected else said
