"""Image files of strangers: opened only if they are small, still and really images.

Sizes are checked before any pixel is decoded, so that a small file cannot fill the memory.
"""

import io
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vqvae2.configuration import JsonObject
from vqvae2.imaging.png import SETTINGS_KEY
from vqvae2.imaging.prepare import upright
from vqvae2.messages import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats that are read; others have decoders that few people need and many have attacked."""


@dataclass(frozen=True)
class UploadLimits:
    """What an uploaded image may be at most.

    Arguments:
        megabytes: of the file.
        megapixels: of the image.
    """

    megabytes: float = 20
    megapixels: float = 40


DEFAULT_LIMITS = UploadLimits()
"""The default limits."""


def open_upload(source: bytes | str | Path, limits: UploadLimits = DEFAULT_LIMITS) -> "Image":
    """An uploaded image upright, as RGB.

    Arguments:
        source: the bytes of the file, or its path.
        limits: of its size.

    Raises:
        ValueError: it is not an image, not a still one, damaged, or too large; one clear line.
    """
    from PIL import Image

    require_small_file(source, limits)
    try:
        with Image.open(readable(source), formats=FORMATS) as image:
            require_small_image(image, limits)
            image.load()
            return upright(image)
    except ValueError:
        raise
    # Pillow raises a dozen kinds of error for damaged files, and its own for huge images. Its
    # warning about large ones is an error where a program asks for that.
    except Exception as error:
        raise ValueError(reason_of(error)) from error


def upload_settings(
    source: bytes | str | Path, limits: UploadLimits = DEFAULT_LIMITS
) -> JsonObject:
    """The settings in an uploaded PNG file of this package.

    Raises:
        ValueError: it is not such a file; one clear line.
    """
    from PIL import Image

    require_small_file(source, limits)
    try:
        with Image.open(readable(source), formats=FORMATS) as image:
            text = image.info.get(SETTINGS_KEY)
        settings = json.loads(text) if isinstance(text, str) else None
    except Exception as error:
        raise ValueError(reason_of(error)) from error
    if not isinstance(settings, dict):
        raise ValueError(
            "This file contains no settings: use a PNG file that was downloaded here or written "
            "by `vqvae2 sample`, unchanged by other programs."
        )
    return settings


def readable(source: bytes | str | Path) -> io.BytesIO | str | Path:
    """What Pillow opens."""
    return io.BytesIO(source) if isinstance(source, bytes) else source


def require_small_file(source: bytes | str | Path, limits: UploadLimits) -> None:
    """Raises ValueError for a file of too many bytes."""
    size = len(source) if isinstance(source, bytes) else os.path.getsize(source)
    megabytes = size / 1e6
    if megabytes > limits.megabytes:
        raise ValueError(
            f"The file has {megabytes:.0f} MB; at most {limits.megabytes:g} MB are taken. Make "
            "the image smaller."
        )


def require_small_image(image: "Image", limits: UploadLimits) -> None:
    """Raises ValueError for an image of too many pixels, or of several frames."""
    megapixels = image.width * image.height / 1e6
    if megapixels > limits.megapixels:
        raise ValueError(
            f"The image has {image.width}x{image.height} pixels ({megapixels:.0f} megapixels); at "
            f"most {limits.megapixels:g} megapixels are taken. Make the image smaller."
        )
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise ValueError(
            f"The file has {frames} frames; a single image is needed. Save one frame as PNG."
        )


def reason_of(error: Exception) -> str:
    """Why a file cannot be read, as one line."""
    from PIL import Image, UnidentifiedImageError

    formats = ", ".join(FORMATS)
    if isinstance(error, UnidentifiedImageError):
        return f"This file is not an image that can be read ({formats}); choose another."
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "The image has far too many pixels. Make the image smaller."
    return f"The image is damaged ({one_line(error)}); choose another."
