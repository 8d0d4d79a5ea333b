"""`vqvae2 reconstruct`: images encoded to codes and decoded again."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, show_skipped
from vqvae2.cli.options import optional, output_folder, parse, require_positive
from vqvae2.data.images import load_folder
from vqvae2.export.progress import grid_path
from vqvae2.export.reconstructions import export_reconstructions
from vqvae2.messages import counted
from vqvae2.pipeline import Pipeline


@dataclass(frozen=True)
class Options:
    """Encode images to codes and decode them again, from all levels and from each level alone.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        images: A folder of images.
        size: Side in pixels that the images are cropped and resized to; 0 is the size that the
            model was trained on.
        out: Folder for the images; RUN/reconstructions by default, ./reconstructions for a saved
            pipeline.
        batch: Number of images at a time. It limits the memory.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    size: int = 0
    out: Annotated[str, optional("FOLDER")] = ""
    batch: int = 32
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = AUTO


def main(arguments: list[str]) -> None:
    """Reconstructs images and writes them."""
    options = parse(Options, "reconstruct", arguments)
    require_positive("batch", options.batch)
    pipeline = Pipeline.open(options.run).to(resolve(options.device))
    size = options.size or pipeline.config.image_size
    pipeline.autoencoder.config.grids(size, size)  # raises for a size without a code grid
    folder = output_folder(options.out, options.run, "reconstructions")
    mse = 0.0
    with monitor() as view:
        dataset = load_folder(options.images, size, progress=view.track)
        for progress in export_reconstructions(
            pipeline, dataset, folder, batch_size=options.batch, source=options.run
        ):
            view.track("reconstructing", progress.done, progress.total)
            mse = progress.mse
    show_skipped(dataset.reasons)
    console.print(
        f"{counted(len(dataset), 'image')} in {folder}, MSE {mse:.5f} (images in [0, 1]); "
        f"image grid: {grid_path(folder)}"
    )
