"""`vqvae2 inpaint`: completions and variations of images."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, show_skipped
from vqvae2.cli.options import SamplingOptions, optional, output_folder, parse, require_positive
from vqvae2.data.images import load_folder
from vqvae2.export.inpaintings import (
    EVERYTHING,
    LOWER_HALF,
    InpaintingRequest,
    export_inpaintings,
    labels_of_folders,
)
from vqvae2.export.progress import grid_path
from vqvae2.messages import counted
from vqvae2.pipeline import Pipeline
from vqvae2.sampling.inpaint import Box


@dataclass(frozen=True)
class Options:
    """Draw a part of images again, by default the lower half.

    With --keep-levels 1 the coarsest codes stay and the finer ones are drawn again, which gives
    variations of an image: the same layout with other details.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        images: A folder of images. A sub-folder with the name of a class gives their class.
        box: Left, top, right and bottom of the part that is drawn again, as fractions of the
            sides: 0 0.5 1 1 is the lower half. With --keep-levels the default is everything.
        keep_levels: Number of coarsest levels whose codes stay everywhere.
        class_name: Class of all the images, where no sub-folder gives it.
        count: Number of versions of each image.
        seed: Seed of the first version; the next versions have the next seeds.
        sampling: How codes are drawn.
        out: Folder for the images; RUN/inpainted by default, ./inpainted for a saved pipeline.
        batch: Number of images at a time. It limits the memory and changes no image.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    box: Annotated[tuple[float, ...], optional("L T R B")] = ()
    keep_levels: int = 0
    class_name: Annotated[str, tyro.conf.arg(name="class"), optional("NAME")] = ""
    count: int = 4
    seed: int = 0
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )
    out: Annotated[str, optional("FOLDER")] = ""
    batch: int = 64
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = AUTO


def main(arguments: list[str]) -> None:
    """Inpaints images and writes them."""
    options = parse(Options, "inpaint", arguments)
    require_positive("count", options.count)
    require_positive("batch", options.batch)
    pipeline = Pipeline.open(options.run).to(resolve(options.device))
    request = InpaintingRequest(
        box=box_of(options),
        keep_levels=options.keep_levels,
        num_versions=options.count,
        seed=options.seed,
        sampling=options.sampling.resolve(pipeline),
        batch_size=options.batch,
        source=options.run,
    )
    folder = output_folder(options.out, options.run, "inpainted")
    with monitor() as view:
        dataset = load_folder(options.images, pipeline.config.image_size, progress=view.track)
        if options.class_name:
            labels = pipeline.labels([options.class_name] * len(dataset))
        else:
            labels = labels_of_folders(pipeline, dataset)
        for progress in export_inpaintings(pipeline, dataset, labels, request, folder):
            view.track("inpainting", progress.done, progress.total)
    show_skipped(dataset.reasons)
    written = counted(len(dataset) * options.count, "image")
    console.print(f"{written} in {folder}; image grid: {grid_path(folder)}")


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
