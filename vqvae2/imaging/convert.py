"""Images as float or uint8 tensors and as Pillow images.

Legend: `B` batch, `C` channels, `H W` sides.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image


def to_float(images: Tensor) -> Tensor:
    """uint8 images (B, C, H, W) as float32 in [0, 1], channels last: faster for convolutions."""
    return images.to(memory_format=torch.channels_last).float() / 255


def to_uint8(images: Tensor) -> Tensor:
    """Float images in [0, 1], of any shape, as uint8 on the CPU, rounded to the nearest value."""
    return rounded(images).cpu()


def rounded(images: Tensor) -> Tensor:
    """`to_uint8` on the device of the images, which is not waited for."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)


def to_pil(image: Tensor) -> "Image":
    """One image (C, H, W), float in [0, 1] or uint8, with 1 or 3 channels, as an RGB image."""
    from PIL import Image

    pixels = image if image.dtype == torch.uint8 else to_uint8(image)
    return Image.fromarray(pixels.cpu().expand(3, -1, -1).movedim(0, -1).contiguous().numpy())


def from_pil(image: "Image") -> Tensor:
    """A Pillow image of any mode as RGB, (3, H, W) uint8."""
    # Not by torch, which would give every thread that decodes a team of threads of its own.
    pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    return torch.from_numpy(np.array(pixels, order="C"))
