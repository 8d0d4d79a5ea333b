"""`vqvae2 encode`: images to a table of codes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, show_skipped
from vqvae2.cli.options import (
    Device,
    ModelName,
    optional,
    parse,
    require_positive,
    require_writable,
)
from vqvae2.data.images import load_images
from vqvae2.export.codes import export_codes
from vqvae2.messages import counted
from vqvae2.pipeline import Pipeline


@dataclass(frozen=True)
class Options:
    """Encode images, and write their codes as a Parquet file with names and classes.

    Read it with `datasets.Dataset.from_parquet`, pandas, or `vqvae2 decode`.

    Arguments:
        run: A run folder, a saved pipeline, the name of a model of this package or of the hub.
        images: A folder of images, or one image. Sub-folders give classes.
        out: The Parquet file.
        size: Side in pixels that the images are cropped and resized to; 0 is the size that the
            model was trained on.
        batch: Number of images at a time.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: ModelName
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    out: Annotated[Path, optional("FILE")] = Path("codes.parquet")
    size: int = 0
    batch: int = 64
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Encodes images and writes their codes."""
    options = parse(Options, "encode", arguments)
    require_positive("batch", options.batch)
    require_writable(options.out, "--out FILE")
    pipeline = Pipeline.open(options.run).to(resolve(options.device))
    size = options.size or pipeline.config.image_size
    grids = pipeline.autoencoder.config.grids(size, size)
    with monitor() as view:
        dataset = load_images(options.images, size, progress=view.track)
        for progress in export_codes(pipeline, dataset, options.out, options.batch):
            view.track("encoding", progress.done, progress.total)
    show_skipped(dataset.reasons)
    maps = " + ".join(f"{grid.height}x{grid.width}" for grid in grids)
    console.print(f"codes {maps} of {counted(len(dataset), 'image')} in {options.out}")
