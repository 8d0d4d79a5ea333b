"""Image grids: rows of images with names and titles."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from vqvae2.imaging.convert import to_pil

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 2
"""Pixels between the images of a grid."""


SIDE = 128
"""Pixels that small images are enlarged to, by an integer factor."""


def image_grid(
    rows: Sequence[Tensor], names: Sequence[str] = (), titles: Sequence[str] = (), scale: int = 0
) -> "Image":
    """Arranges images in rows, on white.

    Arguments:
        rows: One tensor (B, C, H, W) per row, of any sides; smaller images are enlarged to the
            sides of the largest, without smoothing.
        names: Text left of each row.
        titles: Text above each column.
        scale: Integer factor that enlarges every image; by default small images are enlarged to
            about `SIDE`, so that they can be judged.
    """
    from PIL import Image, ImageDraw, ImageFont

    scale = scale or max(1, SIDE // max(row.shape[2] for row in rows))
    height = max(row.shape[2] for row in rows) * scale
    width = max(row.shape[3] for row in rows) * scale
    points = max(10, min(16, height // 3))
    font = ImageFont.load_default(size=points)
    left = max([round(font.getlength(name)) + 8 for name in names], default=0)
    top = points + 8 if titles else 0
    columns = max(len(row) for row in rows)
    step_x, step_y = width + MARGIN, height + MARGIN
    canvas = Image.new("RGB", (left + columns * step_x, top + len(rows) * step_y), "white")
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        if names:
            draw.text((2, top + y * step_y + height // 2), names[y], "black", font, anchor="lm")
        for x, image in enumerate(row):
            enlarged = to_pil(image).resize((width, height), Image.Resampling.NEAREST)
            canvas.paste(enlarged, (left + x * step_x, top + y * step_y))
    for x, title in enumerate(titles):
        draw.text((left + x * step_x + width // 2, 2), title, "black", font, anchor="ma")
    return canvas
