"""`vqvae2 reconstruct`: images encoded to codes and decoded again."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from vqvae2.cli.device import resolve
from vqvae2.cli.display import console, monitor, show_skipped
from vqvae2.cli.options import ModelName, OutputOptions, parse, require_positive
from vqvae2.cli.output import track_export
from vqvae2.data.images import load_images
from vqvae2.export.progress import grid_text
from vqvae2.export.reconstructions import export_reconstructions
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES
from vqvae2.messages import counted


@dataclass(frozen=True)
class Options:
    """Encode images to codes and decode them again, from all levels and from each level alone.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        images: A folder of images, or one image.
        output: Where the images go.
        size: Side in pixels that the images are cropped and resized to; 0 is the size that the
            model was trained on.
    """

    run: ModelName
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    output: tyro.conf.OmitArgPrefixes[OutputOptions]
    size: int = 0


def main(arguments: list[str]) -> None:
    """Reconstructs images and writes them."""
    options = parse(Options, "reconstruct", arguments)
    output = options.output
    require_positive("batch", output.batch)
    folder = output.folder(options.run, "reconstructions")
    pipeline = output.open(options.run, resolve(output.device))
    size = options.size or pipeline.config.image_size
    pipeline.autoencoder.config.grids(size, size)  # raises for a size without a code grid
    with monitor() as view:
        dataset = load_images(options.images, size, progress=view.track)
        reports = export_reconstructions(pipeline, dataset, folder, output.batch, options.run)
        progress = track_export(view, "reconstructing", folder, reports)
    show_skipped(dataset.reasons)
    number = len(dataset)
    grid = grid_text(folder, min(number, NUM_PREVIEW_IMAGES, output.batch), number)
    error = f"MSE {progress.mse:.5f} (images in [0, 1])"
    console.print(f"{counted(number, 'image')} in {folder}, {error}; {grid}")
