"""Boxes and masks in images and code maps: what inpainting keeps and what it samples anew.

Legend: `B` batch, `C` image channels, `H W` sides of an image or a grid.
"""

import math

import torch
import torch.nn.functional as F
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


def covered_by_mask(mask: Tensor, height: int, width: int) -> Tensor:
    """The positions (H, W) bool of a grid that a mask of an image, or of another grid, overlaps.

    Arguments:
        mask: bool, of any two sides.
        height: H of the grid.
        width: W of the grid.
    """
    if mask.ndim != 2 or mask.dtype != torch.bool:
        raise ValueError(
            f"A mask is bool with the shape (H, W), got {mask.dtype} with {tuple(mask.shape)}."
        )
    if not mask.any():
        raise ValueError("The mask is empty: mark at least one position to be sampled anew.")
    # On the least grid that both divide, no cell is cut.
    sides = math.lcm(mask.shape[0], height), math.lcm(mask.shape[1], width)
    fine = F.interpolate(mask[None, None].float(), size=sides)
    return F.adaptive_max_pool2d(fine, (height, width))[0, 0] > 0


def erase_masked(codes: Tensor, mask: Tensor) -> Tensor:
    """Codes (B, H, W, ...) with `UNKNOWN` at every position that a mask overlaps."""
    erased = codes.clone()
    erased[:, covered_by_mask(mask.to(codes.device), *codes.shape[1:3])] = UNKNOWN
    return erased


def paint_over_mask(images: Tensor, mask: Tensor) -> Tensor:
    """Images (B, C, H, W) whose masked pixels are filled from the edge of the mask inwards.

    Each pixel becomes the mean of its known neighbours; an image that is masked completely becomes
    grey.
    """
    hidden = covered_by_mask(mask.to(images.device), *images.shape[2:])
    if hidden.all():
        return torch.full_like(images, 0.5)
    known = (~hidden).to(images.dtype)[None, None]
    painted = images * known
    while not known.all():
        neighbours = 9 * F.avg_pool2d(known, 3, stride=1, padding=1)
        sums = 9 * F.avg_pool2d(painted, 3, stride=1, padding=1)
        border = (known == 0) & (neighbours > 0.5)
        painted = torch.where(border, sums / neighbours.clamp_min(1), painted)
        known = torch.where(border, 1.0, known)
    return painted
