"""`vqvae2 inpaint`: completions and variations of images."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from vqvae2.cli.device import resolve
from vqvae2.cli.display import console, monitor, show_skipped
from vqvae2.cli.options import (
    ModelName,
    OutputOptions,
    SamplingOptions,
    optional,
    parse,
    require_positive,
)
from vqvae2.cli.output import track_export
from vqvae2.data.images import load_images
from vqvae2.export.inpaintings import (
    EVERYTHING,
    MAX_GRID_ROWS,
    InpaintingRequest,
    export_inpaintings,
    labels_of_folders,
)
from vqvae2.export.progress import grid_text
from vqvae2.messages import counted
from vqvae2.pipeline import LOWER_HALF
from vqvae2.sampling.inpaint import Box


@dataclass(frozen=True)
class Options:
    """Draw a part of images again, by default the lower half.

    With --keep-levels 1 the coarsest codes stay and the finer ones are drawn again, which gives
    variations of an image: the same layout with other details.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        images: A folder of images, or one image. A sub-folder with the name of a class gives their
            class.
        output: Where the images go.
        sampling: How codes are drawn.
        box: Left, top, right and bottom of the part that is drawn again, as fractions of the
            sides: 0 0.5 1 1 is the lower half. With --keep-levels the default is everything.
        keep_levels: Number of coarsest levels whose codes stay everywhere.
        class_name: Class of all the images, where no sub-folder gives it.
        count: Number of versions of each image.
        seed: Seed of the first version; the next versions have the next seeds.
    """

    run: ModelName
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    output: tyro.conf.OmitArgPrefixes[OutputOptions]
    sampling: tyro.conf.OmitArgPrefixes[SamplingOptions]
    box: Annotated[tuple[float, ...], optional("L T R B")] = ()
    keep_levels: int = 0
    class_name: Annotated[str, tyro.conf.arg(name="class"), optional("NAME")] = ""
    count: int = 4
    seed: int = 0


def main(arguments: list[str]) -> None:
    """Inpaints images and writes them."""
    options = parse(Options, "inpaint", arguments)
    output = options.output
    require_positive("count", options.count)
    require_positive("batch", output.batch)
    folder = output.folder(options.run, "inpainted")
    pipeline = output.open(options.run, resolve(output.device))
    request = InpaintingRequest(
        box=box_of(options),
        keep_levels=options.keep_levels,
        num_versions=options.count,
        seed=options.seed,
        sampling=options.sampling.resolve(pipeline),
        batch_size=output.batch,
        source=options.run,
    )
    with monitor() as view:
        dataset = load_images(options.images, pipeline.config.image_size, progress=view.track)
        labels = labels_of_folders(pipeline, dataset, options.class_name)
        reports = export_inpaintings(pipeline, dataset, labels, request, folder)
        track_export(view, "inpainting", folder, reports)
    show_skipped(dataset.reasons)
    number = len(dataset) * options.count
    grid = grid_text(folder, min(len(dataset), MAX_GRID_ROWS) * options.count, number)
    console.print(f"{counted(number, 'image')} in {folder}; {grid}")


def box_of(options: Options) -> Box:
    """The part that the options name."""
    if not options.box:
        return EVERYTHING if options.keep_levels else LOWER_HALF
    if len(options.box) != 4:
        raise ValueError(
            f"--box takes left, top, right and bottom, got {counted(len(options.box), 'number')}."
        )
    left, top, right, bottom = options.box
    return left, top, right, bottom
