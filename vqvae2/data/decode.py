"""The decoder: a image's bytes or path become a square of uint8 RGB.

Every image is turned upright, laid on white where transparent, cropped to its central square
and resized without aliasing. One that cannot be read is an `UnreadableImage`, which says why.
"""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vqvae2.imaging.convert import from_pil

if TYPE_CHECKING:
    from PIL.Image import Image


class UnreadableImage(ValueError):
    """A image that cannot be used, and why.

    Arguments:
        reason: What is wrong with it.
        short_side: Its short side in pixels, if being too small is all that is wrong.
    """

    def __init__(self, reason: str, *, short_side: int | None = None) -> None:
        super().__init__(reason)
        self.short_side = short_side


Source = bytes | str | Path  # a image file's bytes, or its path
Decoded = list[Tensor | UnreadableImage]  # one entry a image, (3, S, S) uint8


def decode_image(source: Source, size: int) -> Tensor:
    """Returns the central square of a image, with shape (3, S, S), uint8.

    Arguments:
        source: The file's bytes, or its path.
        size: Side of the square, pixels; the image's short side must be at least half of it.
    """
    with _quiet_pillow():
        return _decode_square(source, size)


def decode_images(sources: Sequence[Source | None], size: int) -> Decoded:
    """Decodes many images in a pool of threads; None stands for a image that is missing."""

    def decode(source: Source | None) -> Tensor | UnreadableImage:
        if source is None:
            return UnreadableImage("the row holds no image")
        try:
            return _decode_square(source, size)
        except UnreadableImage as error:
            return error

    with _quiet_pillow(), ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(decode, sources))


def decode_full(source: Source) -> "Image":
    """Returns a whole image as upright RGB at its own size."""
    with _quiet_pillow():
        return _decode_upright(source, at_least=None)


def one_line(error: BaseException) -> str:
    """Returns what an error says, or else its kind, without line breaks and a final stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return re.sub(r"<_io\.\S+ object at \w+>", "the file", text)


def _decode_square(source: Source, size: int) -> Tensor:
    from PIL.Image import Resampling

    image = _decode_upright(source, at_least=size)
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    # Whole pixels, so that a image whose short side is `size` is cropped and nothing else.
    box = (left, top, left + short, top + short)
    if short == size:
        return from_pil(image.crop(box))
    # Pillow widens the filter with the ratio, so that fine patterns average out.
    return from_pil(image.resize((size, size), Resampling.LANCZOS, box=box, reducing_gap=3.0))


def _decode_upright(source: Source, *, at_least: int | None) -> "Image":
    """Returns the image upright and as RGB; JPEG may come smaller, at 3 times `at_least`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if at_least is not None:
                _check_side(min(image.size), at_least)
                image.draft(image.mode, (3 * at_least, 3 * at_least))
            image.load()
            orientation = image.getexif().get(0x0112, 1)
            return _upright(_rgb(image), orientation)
    except UnreadableImage:
        raise
    # Pillow's readers meet broken files with a dozen kinds of error, from OSError to struct.error.
    except Exception as error:
        raise UnreadableImage(one_line(error)) from error


def _check_side(short: int, size: int) -> None:
    if 2 * short < size:
        raise UnreadableImage(
            f"its short side of {short} pixels is below half of {size}", short_side=short
        )


def _upright(image: "Image", orientation: int) -> "Image":
    """Undoes the rotation that EXIF tag 274 tells; other values than 2 to 8 mean none.

    Pillow's own `exif_transpose` also rewrites the tags, which fails on images whose other tags
    are damaged.
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


def _rgb(image: "Image") -> "Image":
    """Returns any mode of image as RGB, laid on white where it is transparent."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(values: np.ndarray[Any, Any], mode: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scales grey values of more than 8 bits, (H, W), to 0..255.

    "I;16" spans 16 bits. "I" and "F" do not say what white is: it is taken to be the smallest of
    1 ("F" only), 8 and 16 bits that holds the brightest value, else the brightest value.
    """
    grey = np.nan_to_num(values.astype(np.float64))
    spans = {"F": (1.0, 255.0, 65_535.0), "I": (255.0, 65_535.0)}.get(mode, (65_535.0,))
    brightest = grey.max(initial=0.0)
    white = next((span for span in spans if brightest <= span), brightest)
    scaled: np.ndarray[Any, np.dtype[np.uint8]]
    scaled = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return scaled


_WARNINGS = threading.Lock()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow, which warns of damage that it can read around.

    Where warnings are errors they would make readable images unreadable. Filters belong to the
    process, hence the lock: two threads must not restore each other's.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
