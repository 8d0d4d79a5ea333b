"""The image that is edited: its codes, the codes before each edit, and what is painted on it.

What is painted comes from the browser as JSON, so every part of it is checked.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vqvae2.app.fragments import data_url
from vqvae2.pipeline import Pipeline
from vqvae2.pipeline.editing import erased

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_EARLIER = 20
"""Steps that can be undone."""

MAX_CELLS = 64 * 64
"""Cells that can be painted; a finer grid is painted in groups."""

PALETTE_WIDTH = 16
"""Codes per row of the palette."""


@dataclass(frozen=True)
class Canvas:
    """An image by its codes.

    Arguments:
        codes: (1, H, W) per level, coarsest first.
        original: the image itself, (1, C, S, S), before the first edit; else None.
        earlier: the canvases before each edit, the last one last.
    """

    codes: list[Tensor]
    original: Tensor | None = None
    earlier: tuple["Canvas", ...] = ()

    @classmethod
    def of(cls, pipeline: Pipeline, image: "Image") -> "Canvas":
        """The canvas of an image."""
        original = pipeline.batch_of(image)
        return cls(pipeline.encode(original), original)

    def edited(self, codes: list[Tensor]) -> "Canvas":
        """The canvas after an edit."""
        before = Canvas(self.codes, self.original)
        return Canvas(codes, None, (*self.earlier, before)[-MAX_EARLIER:])

    def undone(self) -> "Canvas":
        """The canvas before the last edit."""
        if not self.earlier:
            raise ValueError("There is nothing to undo.")
        last = self.earlier[-1]
        return Canvas(last.codes, last.original, self.earlier[:-1])

    def to_sample(self, pipeline: Pipeline, mask: Tensor, keep_levels: int) -> list[Tensor]:
        """The codes that are kept, and `UNKNOWN` where new ones are drawn."""
        if self.original is None:
            return erased(self.codes, mask, keep_levels)
        return pipeline.preserved_codes(self.original, mask=mask, keep_levels=keep_levels)


def grids_of(pipeline: Pipeline) -> list[tuple[int, int]]:
    """Rows and columns of each level."""
    size = pipeline.config.image_size
    return [grid.shape for grid in pipeline.autoencoder.config.grids(size, size)]


def paint_grid(pipeline: Pipeline) -> tuple[int, int]:
    """Rows and columns of the mask: the finest level, or groups of its cells."""
    rows, columns = grids_of(pipeline)[-1]
    while rows * columns > MAX_CELLS and rows % 2 == columns % 2 == 0:
        rows, columns = rows // 2, columns // 2
    return rows, columns


def mask_painter(pipeline: Pipeline, canvas: Canvas, keep_levels: int = 0) -> dict[str, Any]:
    """What the browser needs to let a user paint a mask."""
    rows, columns = paint_grid(pipeline)
    return {
        "mode": "mask",
        "image": data_url(pipeline.decode(canvas.codes)[0]),
        "alt": "The image that you edit",
        "rows": rows,
        "columns": columns,
        "grids": grids_of(pipeline),
        "keep": keep_levels,
        "cells": [],
    }


def code_painter(
    pipeline: Pipeline, canvas: Canvas, level: int, patches: Tensor
) -> dict[str, Any]:
    """What the browser needs to let a user put codes on a map.

    Arguments:
        pipeline: whose codes they are.
        canvas: the image.
        level: of the map.
        patches: from `code_patches`.
    """
    rows, columns = grids_of(pipeline)[level]
    return {
        "mode": "codes",
        "image": data_url(pipeline.decode(canvas.codes)[0]),
        "alt": "The image whose codes you replace",
        "rows": rows,
        "columns": columns,
        "level": level,
        "codes": canvas.codes[level][0].tolist(),
        "palette": data_url(palette(patches)),
        "count": len(patches),
        "width": PALETTE_WIDTH,
        "changes": {},
    }


def palette(patches: Tensor) -> Tensor:
    """All patches (K, C, h, w) in one image, `PALETTE_WIDTH` per row."""
    missing = -len(patches) % PALETTE_WIDTH
    full = torch.cat([patches, patches.new_zeros(missing, *patches.shape[1:])])
    rows = full.split(PALETTE_WIDTH)
    return torch.cat([torch.cat(list(row), dim=2) for row in rows], dim=1)


def painted_mask(value: object, pipeline: Pipeline) -> Tensor:
    """The mask that a user has painted, (rows, columns) bool.

    Raises:
        ValueError: it is empty, or not a mask of this model.
    """
    rows, columns = paint_grid(pipeline)
    cells = value.get("cells") if isinstance(value, dict) else None
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    for cell in cells if isinstance(cells, list) else []:
        row, column = cell_of(cell, rows, columns)
        mask[row, column] = True
    if not mask.any():
        raise ValueError("Nothing is painted: mark the cells to draw again, then press Redraw.")
    return mask


def painted_codes(value: object) -> tuple[int, dict[tuple[int, int], int]]:
    """The level and the codes that a user has put on it, by (row, column).

    Raises:
        ValueError: there are none, or they are not codes.
    """
    changes = value.get("changes") if isinstance(value, dict) else None
    level = value.get("level") if isinstance(value, dict) else None
    if not isinstance(changes, dict) or not changes or not isinstance(level, int):
        raise ValueError("No code is changed: pick a code, then click the cells that get it.")
    codes: dict[tuple[int, int], int] = {}
    for cell, code in changes.items():
        row, _, column = str(cell).partition(",")
        if not (row.isdecimal() and column.isdecimal() and isinstance(code, int)):
            raise ValueError("The painted codes are damaged; load the image again.")
        codes[int(row), int(column)] = code
    return level, codes


def cell_of(cell: object, rows: int, columns: int) -> tuple[int, int]:
    """A painted cell; ValueError for one that the mask does not have."""
    match cell:
        case [int(row), int(column)] if 0 <= row < rows and 0 <= column < columns:
            return row, column
    raise ValueError(
        f"The mask does not fit this model, which has {rows}x{columns} cells; load the image "
        "again."
    )
