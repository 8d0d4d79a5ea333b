"""`vqvae2 sample`: new images from a run, by class and seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes

from vqvae2.cli.device import share
from vqvae2.cli.display import console, monitor
from vqvae2.cli.options import (
    ModelName,
    OutputOptions,
    SamplingOptions,
    always_equal,
    optional,
    parse,
    require_positive,
)
from vqvae2.cli.output import track_export
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.export.progress import grid_text
from vqvae2.export.samples import SampleRequest, export_samples
from vqvae2.messages import counted
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Draw new images. Every PNG file stores the settings that made it.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        output: Where the images go.
        sampling: How codes are drawn.
        classes: Names or numbers of classes; all classes by default.
        count: Number of images of each class.
        seed: Seed of the first image of each class; the next images have the next seeds.
        keep: Fraction of the samples that is written, for instance 0.1. COUNT / KEEP samples of
            each class are drawn, and those that --judge is most sure of are written: classifier
            rejection.
        judge: The classifier for --keep: path or URL of a TorchScript file with the same classes,
            hub:NAME, or own to train one on the images of the run.
    """

    run: ModelName
    output: OmitArgPrefixes[OutputOptions]
    sampling: OmitArgPrefixes[SamplingOptions]
    classes: Annotated[tuple[str, ...], optional("CLASS ...")] = ()
    count: int = 8
    seed: int = 0
    keep: float = 1.0
    judge: Annotated[str, optional("NETWORK")] = ""


def main(arguments: list[str]) -> None:
    """Draws samples and writes them."""
    options = parse(Options, "sample", arguments)
    output = options.output
    require_positive("count", options.count)
    require_positive("batch", output.batch)
    if options.keep < 1 and not options.judge:
        raise ValueError("--keep below 1 needs a classifier that selects: give --judge NETWORK.")
    world, device = share(output.device)
    console.quiet = not world.is_main
    folder = output.folder(options.run, "samples")
    pipeline = output.open(options.run, device)
    request = SampleRequest(
        labels=labels_of(pipeline, options.classes),
        num_images=options.count,
        seed=options.seed,
        keep=options.keep,
        sampling=options.sampling.resolve(pipeline),
        batch_size=output.batch,
        source=options.run,
    )
    judge = None
    if options.keep < 1:
        judge = extractor_for(RunFolder(Path(options.run)), options.judge, "", device)
    with monitor(world.is_main) as view:
        track_export(
            view, "samples", folder, export_samples(pipeline, request, folder, judge, world)
        )
    if always_equal(request.sampling) and options.count > 1:
        console.print(
            "At temperature 0 every level takes its most probable code, so the images of a class "
            "are equal, whatever their seeds.",
            style="yellow",
        )
    number = request.num_images * len(request.labels)
    written = counted(number, "image")
    selected = f" of {request.total:,}, selected by {judge.name}," if judge else ""
    console.print(
        f"{written}{selected} in {folder}; {grid_text(folder, request.grid_total, number)}"
    )


def labels_of(pipeline: Pipeline, classes: tuple[str, ...]) -> tuple[int, ...]:
    """The labels of the named classes, each once; of all classes where none is named."""
    labels = pipeline.labels(classes).tolist()
    return tuple(dict.fromkeys(labels)) or tuple(range(max(1, len(pipeline.config.class_names))))
