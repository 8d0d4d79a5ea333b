"""Completions and variations of validation images of one or more runs, on one sheet.

    python examples/redraw_sheet.py runs/cifar10 runs/imagenette128-images64 --out redrawn.png

A row is a validation image, what its codes keep of it, its upper half, completions of that half
with the seeds 0, 1, ..., and variations that keep the coarsest codes and draw the others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from torch import Tensor

from vqvae2 import Pipeline
from vqvae2.data.images import open_validation
from vqvae2.data.order import evenly_spaced
from vqvae2.imaging.convert import to_float
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Draw the sheet.

    Arguments:
        runs: Run folders.
        images: Validation images a run, spread over its classes.
        versions: Completions, and variations, of each.
        out: PNG file.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    images: int = 6
    versions: int = 4
    out: Path = Path("redrawn.png")


def rows_of(run: Path, options: Options) -> list[Tensor]:
    """A row of images (columns, C, S, S) for each validation image of a run."""
    pipeline, validation = Pipeline.open(run), open_validation(RunFolder(run).read().data)
    indices = evenly_spaced(len(validation), options.images)
    images, count = to_float(validation.batch(indices)), options.versions
    labels = validation.labels[indices].repeat_interleave(count)
    repeated, seeds = images.repeat_interleave(count, dim=0), [*range(count)] * len(images)
    completed = pipeline.inpaint(repeated, labels, seeds).images
    varied = pipeline.inpaint(repeated, labels, seeds, box=(0, 0, 1, 1), keep_levels=1).images
    upper = images.clone()
    upper[:, :, images.shape[2] // 2 :] = 0.5
    first = zip(images, pipeline.reconstruct(images), upper, strict=True)
    drawn = zip(completed.split(count), varied.split(count), strict=True)
    return [torch.cat([torch.stack(a), *b]) for a, b in zip(first, drawn, strict=True)]


def main() -> None:
    """Draws one sheet of all runs."""
    options = tyro.cli(Options)
    rows = [row for run in options.runs for row in rows_of(run, options)]
    seeds = [f"{n}" for n in range(options.versions)]
    titles = [
        "image",
        "codes",
        "kept",
        *(f"half {n}" for n in seeds),
        *(f"var. {n}" for n in seeds),
    ]
    side = max(row.shape[2] for row in rows)
    save_png(options.out, image_grid(rows, titles=titles, scale=max(1, 96 // side)))


if __name__ == "__main__":
    main()
