"""Pillow images as models take them: upright, RGB, the central square.

Legend: `H W` sides, `S` side of the square.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION = 0x0112
"""The tag of EXIF that says how a camera was held."""


def central_square(image: "Image", size: int) -> "Image":
    """The central square of an image, resized to `size` pixels a side without aliasing."""
    from PIL.Image import Resampling

    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    # Integer pixels, so that an image whose short side is `size` is only cropped.
    box = (left, top, left + short, top + short)
    if short == size:
        return image.crop(box)
    # Pillow widens the filter with the ratio, so that fine patterns are averaged.
    return image.resize((size, size), Resampling.LANCZOS, box=box, reducing_gap=3.0)


def upright(image: "Image") -> "Image":
    """An image of any mode as RGB, turned as its EXIF data say, on white where transparent."""
    return turned(rgb(image), image.getexif().get(ORIENTATION, 1))


def turned(image: "Image", orientation: int) -> "Image":
    """Undoes the rotation of EXIF tag 274; values other than 2 to 8 mean none.

    Pillow's `exif_transpose` also rewrites the tags, which fails where other tags are damaged.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def rgb(image: "Image") -> "Image":
    """An image of any mode as RGB, on white where it is transparent."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(to_8_bits(np.asarray(image), image.mode)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def to_8_bits(values: NDArray[np.int32 | np.uint16 | np.float32], mode: str) -> NDArray[np.uint8]:
    """Scales grey values (H, W) of more than 8 bits to 0..255.

    "I;16" has 16 bits. "I" and "F" do not define white: it is the smallest of 1 ("F" only), 8 and
    16 bits that is at least the brightest value, else the brightest value.
    """
    grey = np.nan_to_num(values.astype(np.float64))
    ranges = {"F": (1.0, 255.0, 65_535.0), "I": (255.0, 65_535.0)}.get(mode, (65_535.0,))
    brightest = float(grey.max(initial=0.0))
    white = next((limit for limit in ranges if brightest <= limit), brightest)
    return np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
