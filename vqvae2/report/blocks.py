"""The kinds of content of a report; a section is a list of them, and template.html draws them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from markupsafe import Markup
from torch import Tensor

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png
from vqvae2.report.doctor import Finding
from vqvae2.report.tables import Table

LOSSLESS_SIDE = 64  # larger images are stored as JPEG, to keep the file small


@dataclass(frozen=True)
class Text:
    """A paragraph; `commands` are set in a fixed-width font."""

    text: str
    kind: Literal["lead", "note"] = "lead"


@dataclass(frozen=True)
class Facts:
    """Short values with their names."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class Folded:
    """A list of names, or preformatted text, that unfolds under a summary."""

    summary: str
    content: Sequence[str] | str


@dataclass(frozen=True)
class Metric:
    """A value with its unit and a note; with a share in [0, 1] it has a bar."""

    value: str
    unit: str
    note: str
    share: float | None = None


@dataclass(frozen=True)
class Card:
    """Metrics under a label; a level >= 0 gives the label the colour of the level."""

    label: str
    metrics: Sequence[Metric]
    level: int = -1


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    cards: Sequence[Card]


@dataclass(frozen=True)
class Curve:
    """A plot as SVG; a level >= 0 gives the title the colour of the level."""

    title: str
    plot: Markup
    note: str = ""
    level: int = -1


@dataclass(frozen=True)
class Plots:
    """Plots side by side."""

    curves: Sequence[Curve]


@dataclass(frozen=True)
class ImageRow:
    """Images side by side under a name; a level >= 0 gives the name the colour of the level."""

    name: str
    images: Sequence[Markup]
    level: int = -1


@dataclass(frozen=True)
class ImageRows:
    """Rows of images of the same length, with a caption under each column if there are any."""

    rows: Sequence[ImageRow]
    captions: Sequence[str] = ()


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of images, each with a caption."""

    pairs: Sequence[tuple[Markup, Markup, str]]


@dataclass(frozen=True)
class Gallery:
    """Images, each with a caption, as large as the page allows."""

    images: Sequence[Markup]
    captions: Sequence[str]


@dataclass(frozen=True)
class WideImage:
    """One large image."""

    image: Markup


@dataclass(frozen=True)
class Findings:
    """The results of the doctor's checks."""

    findings: Sequence[Finding]


Block: TypeAlias = (
    Text
    | Table
    | Facts
    | Folded
    | Cards
    | Plots
    | ImageRows
    | ImagePairs
    | Gallery
    | WideImage
    | Findings
)


def image_row(name: str, images: Tensor, level: int = -1) -> ImageRow:
    """Images (B, C, H, W) in [0, 1] under a name."""
    texts = [f"{name} {number}".strip() for number in range(len(images))]
    return ImageRow(name, list(map(embedded_image, images, texts)), level)


def embedded_image(image: Tensor, text: str) -> Markup:
    """An image (C, H, W) in [0, 1] inside the page: PNG if small, otherwise JPEG."""
    pixels = to_pil(image)
    if max(pixels.size) <= LOSSLESS_SIDE:
        return embedded_file("png", png(pixels), text)
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=92, subsampling=0)
    return embedded_file("jpeg", buffer.getvalue(), text)


def embedded_file(kind: str, data: bytes, text: str) -> Markup:
    """The bytes of an image file as an element; the text replaces it for screen readers."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Markup('<img src="{}" alt="{}">').format(source, text)
