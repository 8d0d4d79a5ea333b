"""PNG files that carry the settings they were made with."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from vqvae2.configuration import Json, JsonObject
from vqvae2.files import write_bytes
from vqvae2.imaging.convert import from_pil, to_float

if TYPE_CHECKING:
    from PIL.Image import Image

SETTINGS_KEY = "vqvae2"
"""Keyword of the text chunk that holds the settings, as JSON."""


def png(image: "Image", settings: Mapping[str, Json] | None = None) -> bytes:
    """The bytes of a PNG file, with `settings` in a text chunk."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if settings is not None:
        info.add_itxt(SETTINGS_KEY, json.dumps(settings))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(path: Path, image: "Image", settings: Mapping[str, Json] | None = None) -> None:
    """Writes a PNG file atomically, with `settings` in a text chunk."""
    write_bytes(path, png(image, settings))


def read_png(path: Path) -> Tensor:
    """The image of a file that `save_png` wrote, (3, H, W) float in [0, 1]."""
    from PIL import Image

    with Image.open(path) as image:
        return to_float(from_pil(image)[None])[0]


def read_settings(path: Path) -> JsonObject:
    """The settings in a file that `save_png` wrote; {} if there are none."""
    from PIL import Image

    with Image.open(path) as image:
        text = image.info.get(SETTINGS_KEY)
    return json.loads(text) if isinstance(text, str) else {}
