"""Images in and out of models: bytes and floats, PNG files with settings, labelled sheets.

Legend: `B` images, `C` channels, `H W` sides, `K` codes.
"""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vqvae2.data.decode import decode_full, to_uint8_rgb
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import inference_batch_size
from vqvae2.files import write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

MARGIN = 2
"""Pixels between the images of a sheet."""


def to_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1], channels last: convolutions are faster so."""
    return images.to(memory_format=torch.channels_last).float() / 255


def batches(
    dataset: ImageDataset, indices: Tensor, device: str | torch.device = "cpu"
) -> Iterator[Tensor]:
    """Images in [0, 1], (B, 3, S, S), as many at a time as 128 of 64 x 64 have pixels."""
    for part in torch.split(indices, inference_batch_size(dataset.size)):
        if len(part):  # of nothing, torch makes one part
            yield to_float(dataset.batch(part).to(device))


def to_uint8(images: Tensor) -> Tensor:
    """Images in [0, 1] as uint8, rounded to the nearest value (not truncated)."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def to_pil(image: Tensor) -> "Image":
    """One image (C, H, W), float in [0, 1] or uint8, as a Pillow image."""
    from PIL import Image

    pixels = image if image.dtype == torch.uint8 else to_uint8(image)
    return Image.fromarray(pixels.cpu().expand(3, -1, -1).movedim(0, -1).contiguous().numpy())


def read_png(path: Path) -> Tensor:
    """A image that `save_png` wrote, (3, H, W) in [0, 1]."""
    return to_uint8_rgb(decode_full(path)).float() / 255


def code_map(codes: Tensor, num_codes: int) -> Tensor:
    """Codes (B, H, W) as images (B, 3, H, W) in [0, 1]: a fixed colour a code."""
    # Golden-ratio hues: codes near in number get colours far apart.
    hue = torch.arange(num_codes) * 0.61803398875 % 1
    light = 0.35 + 0.6 * (torch.arange(num_codes) * 0.3247 % 1)
    phases = torch.tensor([0.0, 1 / 3, 2 / 3])
    colours = (0.5 + 0.5 * torch.cos(2 * torch.pi * (hue[:, None] + phases))) * light[:, None]
    return colours[codes.cpu()].movedim(-1, 1)


def heat(values: Tensor) -> Tensor:
    """Values (B, H, W) as images (B, 3, H, W) in [0, 1]: black at 0, red, yellow, white at 1."""
    return torch.stack([3 * values, 3 * values - 1, 3 * values - 2], dim=1).clamp(0, 1)


def sheet(
    rows: Sequence[Tensor], names: Sequence[str] = (), titles: Sequence[str] = (), scale: int = 1
) -> "Image":
    """Images in rows, as one Pillow image on white.

    Arguments:
        rows: (B, C, H, W) a row, of any sides; enlarged without smoothing to those of the largest.
        names: a text left of each row.
        titles: a text above each column.
        scale: whole number by which everything is enlarged.
    """
    from PIL import Image, ImageDraw, ImageFont

    side_y = max(row.shape[2] for row in rows) * scale
    side_x = max(row.shape[3] for row in rows) * scale
    points = max(10, min(16, side_y // 3))
    font = ImageFont.load_default(size=points)
    left = max([round(font.getlength(name)) + 8 for name in names], default=0)
    top = points + 8 if titles else 0
    columns = max(len(row) for row in rows)
    step_x, step_y = side_x + MARGIN, side_y + MARGIN
    canvas = Image.new("RGB", (left + columns * step_x, top + len(rows) * step_y), "white")
    draw = ImageDraw.Draw(canvas)
    for y, row in enumerate(rows):
        if names:
            draw.text((2, top + y * step_y + side_y // 2), names[y], "black", font, anchor="lm")
        for x, image in enumerate(row):
            image = to_pil(image).resize((side_x, side_y), Image.Resampling.NEAREST)
            canvas.paste(image, (left + x * step_x, top + y * step_y))
    for x, title in enumerate(titles):
        draw.text((left + x * step_x + side_x // 2, 2), title, "black", font, anchor="ma")
    return canvas


def png(image: "Image", settings: Mapping[str, Any] | None = None) -> bytes:
    """A PNG file; `settings` go in as a text chunk named `vqvae2`, as JSON."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if settings is not None:
        info.add_itxt("vqvae2", json.dumps(settings))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(path: Path, image: "Image", settings: Mapping[str, Any] | None = None) -> None:
    """Writes a PNG file, whole or not at all."""
    write_bytes(path, png(image, settings))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings inside a PNG that `save_png` wrote; {} if there are none."""
    from PIL import Image

    with Image.open(path) as image:
        text = image.info.get("vqvae2")
    settings: dict[str, Any] = json.loads(text) if isinstance(text, str) else {}
    return settings
