"""The kinds of content of a report; a section is a list of them, and template.html draws them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from markupsafe import Markup
from torch import Tensor

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png
from vqvae2.report.doctor import Finding

LOSSLESS_SIDE = 64  # larger images are stored as JPEG, to keep the file small


@dataclass(frozen=True)
class Text:
    """A paragraph; `commands` are set in a fixed-width font."""

    text: str
    kind: Literal["lead", "note"] = "lead"


@dataclass(frozen=True)
class Table:
    """A table; with `has_meanings` the first column is code and the second explains it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    has_meanings: bool = False


@dataclass(frozen=True)
class Facts:
    """Short values with their names."""

    values: Mapping[str, str]


@dataclass(frozen=True)
class NameList:
    """A list of names; with a summary it is folded."""

    names: Sequence[str]
    summary: str = ""


@dataclass(frozen=True)
class FoldedText:
    """Preformatted text under a summary."""

    summary: str
    text: str


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
class EmbeddedImage:
    """An image inside the page: a data URI, and the text that replaces it for screen readers."""

    source: str
    text: str


@dataclass(frozen=True)
class ImageRow:
    """Images side by side under a name; a level >= 0 gives the name the colour of the level."""

    name: str
    images: Sequence[EmbeddedImage]
    level: int = -1


@dataclass(frozen=True)
class ImageRows:
    """Rows of images of the same length, with a caption under each column if there are any."""

    rows: Sequence[ImageRow]
    captions: Sequence[str] = ()

    @property
    def has_names(self) -> bool:
        """Whether the rows have names."""
        return any(row.name for row in self.rows)


@dataclass(frozen=True)
class ImagePairs:
    """Pairs of images, each with a caption."""

    pairs: Sequence[tuple[EmbeddedImage, EmbeddedImage, str]]


@dataclass(frozen=True)
class WideImage:
    """One large image."""

    image: EmbeddedImage


@dataclass(frozen=True)
class Findings:
    """A list of findings."""

    findings: Sequence[Finding]


Block: TypeAlias = (
    Text | Table | Facts | NameList | FoldedText | Plots | ImageRows | ImagePairs | WideImage
    | Findings
)  # fmt: skip


def curve(title: str, svg: str, note: str = "", level: int = -1) -> Curve:
    """A plot of ours; matplotlib escapes the texts of users in it."""
    return Curve(title, Markup(svg), note, level)


def image_row(name: str, images: Tensor, level: int = -1) -> ImageRow:
    """Images (B, C, H, W) in [0, 1] under a name."""
    texts = [f"{name} {number}".strip() for number in range(len(images))]
    return ImageRow(name, list(map(embedded_image, images, texts)), level)


def embedded_image(image: Tensor, text: str) -> EmbeddedImage:
    """An image (C, H, W) in [0, 1] as a data URI: PNG if small, otherwise JPEG."""
    pixels = to_pil(image)
    if max(pixels.size) <= LOSSLESS_SIDE:
        return EmbeddedImage(data_uri("png", png(pixels)), text)
    buffer = io.BytesIO()
    pixels.save(buffer, "JPEG", quality=92, subsampling=0)
    return EmbeddedImage(data_uri("jpeg", buffer.getvalue()), text)


def embedded_file(path: Path, text: str) -> EmbeddedImage:
    """A PNG file as a data URI."""
    return EmbeddedImage(data_uri("png", path.read_bytes()), text)


def data_uri(kind: str, data: bytes) -> str:
    """The bytes of an image as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
