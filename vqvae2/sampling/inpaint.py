"""Boxes in images and code maps: what inpainting keeps and what it samples anew.

Legend: `B` batch, `C` image channels, `H W` sides of an image or a grid.
"""

import math

import torch
from torch import Tensor

UNKNOWN = -1
"""Marks the positions of a given map that are to be sampled."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, as fractions of its sides."""


def covered(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the positions of an H x W grid that the box overlaps."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"A box is left, top, right, bottom as fractions of the sides, 0 <= left < right <= 1 "
            f"and 0 <= top < bottom <= 1; got {', '.join(f'{side:g}' for side in box)}."
        )
    rows = slice(math.floor(top * height), math.ceil(bottom * height))
    return rows, slice(math.floor(left * width), math.ceil(right * width))


def erase(codes: Tensor, box: Box) -> Tensor:
    """Codes (B, H, W, ...) with `UNKNOWN` at every position that the box overlaps."""
    rows, columns = covered(box, *codes.shape[1:3])
    erased = codes.clone()
    erased[:, rows, columns] = UNKNOWN
    return erased


def paint_over(images: Tensor, box: Box) -> Tensor:
    """Images (B, C, H, W) with the box filled by the nearest row, or column, outside of it.

    A box that covers the complete image is filled with grey.
    """
    rows, columns = covered(box, *images.shape[2:])
    painted = images.clone()
    if rows.start:
        fill = images[:, :, rows.start - 1 : rows.start, columns]
    elif rows.stop < images.shape[2]:
        fill = images[:, :, rows.stop : rows.stop + 1, columns]
    elif columns.start:
        fill = images[:, :, rows, columns.start - 1 : columns.start]
    elif columns.stop < images.shape[3]:
        fill = images[:, :, rows, columns.stop : columns.stop + 1]
    else:
        fill = torch.full_like(images[:, :, :1, :1], 0.5)
    painted[:, :, rows, columns] = fill
    return painted
