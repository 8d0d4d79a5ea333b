"""Edits of code maps: levels of two images mixed, single codes replaced, codes shown as patches.

Legend: `B` batch, `C` image channels, `K` codes, `H W` code grid.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vqvae2.autoencoder import Pixels
from vqvae2.pipeline.models import Models
from vqvae2.sampling.inpaint import erase_masked

CONTEXT = 1
"""Cells around the cell of a patch: the decoder reads the neighbourhood of each code."""


def mixed(
    first: Sequence[Tensor], second: Sequence[Tensor], levels: Sequence[int]
) -> list[Tensor]:
    """The codes of one image, with the given levels of another.

    Arguments:
        first: (B, H, W) per level, coarsest first.
        second: of the same shapes.
        levels: those that are taken from `second`.
    """
    shapes = [[tuple(maps.shape) for maps in codes] for codes in (first, second)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"Both images must have codes of one shape, got {shapes[0]}, {shapes[1]}."
        )
    return [
        theirs if level in levels else ours
        for level, (ours, theirs) in enumerate(zip(first, second, strict=True))
    ]


def with_codes(
    pipeline: Models, codes: Sequence[Tensor], level: int, cells: dict[tuple[int, int], int]
) -> list[Tensor]:
    """Codes of which some are replaced, in all images.

    Arguments:
        pipeline: whose codes they are.
        codes: (B, H, W) per level, coarsest first.
        level: the level that is changed.
        cells: the new code at each (row, column).
    """
    if not 0 <= level < len(codes):
        raise ValueError(f"Levels are 0 to {len(codes) - 1}, got {level}.")
    num_codes = number_of_codes(pipeline)[level]
    changed = codes[level].clone()
    height, width = changed.shape[1:3]
    for (row, column), code in cells.items():
        if not (0 <= row < height and 0 <= column < width and 0 <= code < num_codes):
            raise ValueError(
                f"Level {level} has {height} rows, {width} columns and {num_codes} codes; got "
                f"code {code} at row {row}, column {column}, counted from 0."
            )
        changed[:, row, column] = code
    return [*codes[:level], changed, *codes[level + 1 :]]


def number_of_codes(pipeline: Models) -> list[int]:
    """K of each level, coarsest first."""
    size = pipeline.config.image_size
    return [grid.num_codes for grid in pipeline.autoencoder.config.grids(size, size)]


@torch.no_grad()
def code_patches(pipeline: Models, level: int) -> Tensor:
    """What each code of a level decodes to alone, (K, C, ., .) in [0, 1].

    A patch is the middle cell of a small map that holds one code everywhere. The other levels are
    left out, so that the patch depends on its code only.

    Arguments:
        pipeline: with an autoencoder.
        level: 0 is the coarsest.
    """
    if isinstance(pipeline.autoencoder, Pixels):
        raise ValueError("This model has pixels in place of codes; there are no patches to show.")
    config, size = pipeline.autoencoder.config, pipeline.config.image_size
    grids = config.grids(size, size)
    grid, coarsest = grids[level], grids[0]
    cell = size // grid.height
    coarse_cells = min(coarsest.height, 2 * CONTEXT + 1)
    side = coarse_cells * (size // coarsest.height)
    small = config.grids(side, side)
    codes = torch.arange(grid.num_codes)
    maps = [torch.zeros(1, *other.shape, dtype=torch.int64) for other in small]
    middle = small[level].height // 2 * cell
    patches = []
    for part in codes.split(64):
        batch = [other.expand(len(part), -1, -1) for other in maps]
        batch[level] = part[:, None, None].expand(-1, *small[level].shape)
        images = pipeline.decode(batch, [level] if len(maps) > 1 else None, "plain")
        patches.append(images[:, :, middle : middle + cell, middle : middle + cell].cpu())
    return torch.cat(patches)


def erased(codes: Sequence[Tensor], mask: Tensor, keep_levels: int = 0) -> list[Tensor]:
    """Codes to sample again: `UNKNOWN` where a mask is, in all levels that are not kept.

    `Pipeline.preserved_codes` does the same for an image, and also hides the masked part from the
    encoder; this is for codes that were sampled, whose image is not needed.

    Arguments:
        codes: (B, H, W) per level, coarsest first.
        mask: (H, W) bool, of the image or of a grid.
        keep_levels: number of coarsest levels that are kept everywhere.
    """
    if not 0 <= keep_levels < len(codes):
        raise ValueError(
            f"keep_levels must be in [0, {len(codes)}), or nothing is left to sample; got "
            f"{keep_levels}."
        )
    kept = [erase_masked(maps, mask) for maps in codes[keep_levels:]]
    return [*codes[:keep_levels], *kept]
