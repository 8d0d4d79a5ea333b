"""Images as people have them: tensors, NumPy arrays, Pillow images, or lists of these.

What the numbers mean follows from their type alone: uint8 runs from 0 to 255, floating point from
0 to 1. Channels come first in tensors, as in torch, and last in NumPy arrays, as in Pillow; both
are taken at their own size. Pillow images are prepared as files are for training: upright, RGB,
the central square, resized to the side of the model's images.

Legend: `B` batch, `C` channels, `H W` sides.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae2.imaging.convert import from_pil, to_float
from vqvae2.imaging.prepare import central_square, upright

if TYPE_CHECKING:
    from PIL.Image import Image

Images: TypeAlias = Union[Tensor, NDArray[np.generic], "Image", Sequence["Images"]]
"""One image or many: (C, H, W) or (B, C, H, W) tensors, (H, W, C), (H, W) or (B, H, W, C) arrays,
Pillow images, or a list of any of these."""

ROUNDING = 1e-3
"""How far floating point numbers may lie outside of [0, 1]: resizing overshoots a little."""


def as_batch(images: Images, channels: int, size: int) -> Tensor:
    """Images as float32 (or float64, if they are) in [0, 1], (B, C, H, W).

    Arguments:
        images: One image or many.
        channels: C of the model.
        size: The side to which Pillow images are resized, pixels.

    Raises:
        ValueError: They cannot be images of this model; the message says why.
    """
    if isinstance(images, Tensor):
        return floats(with_batch(images, channels))
    if isinstance(images, np.ndarray):
        return floats(with_batch(channels_first(images, channels), channels))
    if isinstance(images, list | tuple):
        return joined([as_batch(image, channels, size) for image in images])
    from PIL import Image

    if isinstance(images, Image.Image):
        square = from_pil(central_square(upright(images), size))
        return floats(with_batch(square if channels != 1 else grey(square), channels))
    raise ValueError(
        "Images must be tensors, NumPy arrays or Pillow images, or a list of these, got "
        f"{type(images).__name__}; open a file with PIL.Image.open."
    )


def with_batch(images: Tensor, channels: int) -> Tensor:
    """Images (C, H, W) or (B, C, H, W) as (B, C, H, W), of a type that has a meaning."""
    if images.ndim not in (3, 4) or images.shape[-3] != channels:
        raise ValueError(
            f"Images must have the shape ({channels}, H, W) or (B, {channels}, H, W), got "
            f"{tuple(images.shape)}; tensors have their channels first, NumPy arrays last."
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise ValueError(
            f"Images must be uint8 from 0 to 255 or floating point from 0 to 1, got {images.dtype}"
            "; convert them to one of these."
        )
    return images.reshape(-1, *images.shape[-3:])


def floats(images: Tensor) -> Tensor:
    """Images in [0, 1]; ValueError for numbers that cannot be of images."""
    if images.dtype == torch.uint8:
        return to_float(images)
    images = images if images.dtype == torch.float64 else images.float()
    if not images.numel():
        return images
    low, high = (float(bound) for bound in images.aminmax())
    if not (-ROUNDING <= low and high <= 1 + ROUNDING):
        raise ValueError(
            f"Images of floating point numbers must lie in [0, 1], got {low:.4g} to {high:.4g}; "
            "scale them, or use uint8 for 0 to 255."
        )
    return images


def channels_first(images: NDArray[np.generic], channels: int) -> Tensor:
    """An array (H, W), (H, W, C) or (B, H, W, C) as a tensor with its channels first."""
    if images.ndim == 2:
        images = images[:, :, None]
    if images.ndim not in (3, 4) or images.shape[-1] != channels:
        raise ValueError(
            f"Arrays of images must have the shape (H, W, {channels}) or (B, H, W, {channels}), "
            f"got {images.shape}; NumPy arrays have their channels last, tensors first."
        )
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))


def grey(image: Tensor) -> Tensor:
    """The luma of an RGB image (3, H, W) uint8, (1, H, W) uint8 (ITU-R BT.601, as in Pillow)."""
    weights = torch.tensor([0.299, 0.587, 0.114])
    return (image.float() * weights[:, None, None]).sum(dim=0, keepdim=True).round().byte()


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Batches of images of equal sides as one."""
    if not parts:
        raise ValueError("Expected at least one image, got an empty list.")
    sides = {tuple(part.shape[-2:]) for part in parts}
    if len(sides) > 1:
        shapes = " and ".join(f"{height}x{width}" for height, width in sorted(sides)[:3])
        raise ValueError(f"Images of one call must have equal sides, got {shapes}; resize them.")
    return torch.cat([part.to(parts[0].device) for part in parts])
