"""Completions and variations of validation images of one or more runs, in one image grid.

    python examples/inpainting_grid.py runs/cifar10 runs/imagenette128-images64

Each row is a validation image, its reconstruction, its upper half, completions of that half with
the seeds 0, 1, ..., and variations that keep the coarsest codes and sample the finer ones.
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
    """Write the image grid.

    Arguments:
        runs: Run folders.
        images: Number of validation images per run, spread over its classes.
        versions: Number of completions, and of variations, per image.
        out: PNG file.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    images: int = 6
    versions: int = 4
    out: Path = Path("inpaintings.png")


def rows_of(run: Path, options: Options) -> list[Tensor]:
    """One row of images (columns, C, S, S) for each validation image of a run."""
    pipeline, validation = Pipeline.open(run), open_validation(RunFolder(run).read().data)
    indices = evenly_spaced(len(validation), options.images)
    images, count = to_float(validation.batch(indices)), options.versions
    labels = validation.labels[indices].repeat_interleave(count)
    repeated, seeds = images.repeat_interleave(count, dim=0), [*range(count)] * len(images)
    completions = pipeline.inpaint(repeated, labels, seeds).images
    variations = pipeline.inpaint(repeated, labels, seeds, box=(0, 0, 1, 1), keep_levels=1).images
    upper = images.clone()
    upper[:, :, images.shape[2] // 2 :] = 0.5
    columns = zip(images, pipeline.reconstruct(images), upper, strict=True)
    versions = zip(completions.split(count), variations.split(count), strict=True)
    return [torch.cat([torch.stack(a), *b]) for a, b in zip(columns, versions, strict=True)]


def main() -> None:
    """Writes one image grid of all runs."""
    options = tyro.cli(Options)
    rows = [row for run in options.runs for row in rows_of(run, options)]
    seeds = range(options.versions)
    titles = ["image", "codes", "upper", *(f"half {n}" for n in seeds)]
    titles += [f"var. {n}" for n in seeds]
    side = max(row.shape[2] for row in rows)
    save_png(options.out, image_grid(rows, titles=titles, scale=max(1, 96 // side)))


if __name__ == "__main__":
    main()
