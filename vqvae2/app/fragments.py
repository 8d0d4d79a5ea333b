"""Pieces of HTML: images, tables, maps with numbers. Every text in them is escaped.

Images are inside the HTML, so no other user can fetch them and no file of them is left.

Legend: `C` image channels, `H W` sides.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from vqvae2.configuration import Json
from vqvae2.imaging.colormaps import heat
from vqvae2.imaging.convert import to_pil, to_uint8
from vqvae2.imaging.png import png


@dataclass(frozen=True)
class Picture:
    """An image with its texts.

    Arguments:
        image: (C, H, W) in [0, 1].
        alt: what it shows, for those who cannot see it.
        caption: below the image.
        file: name of the download; "" offers none.
        settings: what made it; stored in the download.
    """

    image: Tensor
    alt: str
    caption: str = ""
    file: str = ""
    settings: Mapping[str, Json] | None = None


def data_url(image: Tensor, settings: Mapping[str, Json] | None = None) -> str:
    """An image (C, H, W) in [0, 1] as the address of itself."""
    return f"data:image/png;base64,{base64.b64encode(png(to_pil(image), settings)).decode()}"


def escaped(text: object) -> str:
    """A text that cannot become markup, in an attribute or outside of one."""
    return html.escape(str(text), quote=True)


def image_tag(picture: Picture) -> str:
    """The image itself."""
    pixels = data_url(picture.image, picture.settings)
    return f'<img src="{pixels}" alt="{escaped(picture.alt)}">'


def gallery(pictures: Iterable[Picture], selected: int | None = None) -> str:
    """Images side by side; with a selected one they are buttons, of which one is pressed."""
    figures = []
    for index, picture in enumerate(pictures):
        image = image_tag(picture)
        if selected is not None:
            pressed = "true" if index == selected else "false"
            image = (
                f'<button type="button" class="vq-choice" data-index="{index}" '
                f'aria-pressed="{pressed}">{image}</button>'
            )
        link = ""
        if picture.file:
            link = (
                f' <button type="button" class="vq-download" data-file="{escaped(picture.file)}" '
                f'aria-label="Download {escaped(picture.file)}">PNG</button>'
            )
        caption = f"<figcaption>{escaped(picture.caption)}{link}</figcaption>"
        figures.append(f"<figure>{image}{caption}</figure>")
    return f'<div class="vq-gallery">{"".join(figures)}</div>'


def rows(named: Mapping[str, Sequence[Picture]]) -> str:
    """Rows of images, each under its name."""
    return "".join(f"<h3>{escaped(name)}</h3>{gallery(row)}" for name, row in named.items())


def compared(left: Picture, right: Picture) -> str:
    """Two images in one place; a slider moves the border between them."""
    label = f"Border between {left.caption} (left) and {right.caption} (right), in percent"
    return (
        f'<div class="vq-compare" style="--at: 50%"><div class="vq-pair">{image_tag(right)}'
        f"{image_tag(left)}</div>"
        f'<input type="range" min="0" max="100" value="50" aria-label="{escaped(label)}">'
        f'<div class="vq-ends"><span>{escaped(left.caption)}</span>'
        f"<span>{escaped(right.caption)}</span></div></div>"
    )


def facts(values: Mapping[str, object]) -> str:
    """Names with values."""
    items = (
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>"
        for name, value in values.items()
    )
    return f'<dl class="vq-facts">{"".join(items)}</dl>'


def table(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table; it scrolls by itself on a narrow screen."""
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escaped(cell)}</td>" for cell in line) + "</tr>" for line in lines
    )
    return (
        f'<div class="vq-scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def note(text: str, kind: str = "note") -> str:
    """A paragraph that screen readers announce when it changes."""
    return f'<p class="vq-{escaped(kind)}" role="status">{escaped(text)}</p>'


def number_map(values: Tensor, codes: Tensor, white: float, title: str) -> str:
    """A map whose numbers appear under the mouse, or by the arrow keys.

    Arguments:
        values: (H, W) nats.
        codes: (H, W) int64, or (H, W, channels) for pixels.
        white: the value that is white.
        title: above the map.
    """
    height, width = values.shape
    colours = to_uint8(heat(values[None] / max(white, 1e-9)))[0].movedim(0, -1).tolist()
    cells: list[str] = []
    numbers, shown = values.tolist(), codes.tolist()
    for row in range(height):
        for column in range(width):
            code = " ".join(map(str, as_list(shown[row][column])))
            text = (
                f"row {row + 1}, column {column + 1}: {numbers[row][column]:.2f} nats, code {code}"
            )
            red, green, blue = colours[row][column]
            cells.append(
                f'<i tabindex="{-1 if cells else 0}" role="img" aria-label="{text}" '
                f'style="background:rgb({red},{green},{blue})"></i>'
            )
    hint = "Point at the map, or move on it with the arrow keys, to read its numbers."
    return (
        f'<figure class="vq-map"><figcaption>{escaped(title)}</figcaption>'
        f'<div class="vq-cells" style="--columns:{width}" data-columns="{width}" role="group" '
        f'aria-label="{escaped(title)}">{"".join(cells)}</div><output>{hint}</output></figure>'
    )


def as_list(code: int | list[int]) -> list[int]:
    """One code, or the intensities of a pixel."""
    return code if isinstance(code, list) else [code]
