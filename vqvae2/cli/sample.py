"""`vqvae2 sample`: new images from a run, by class and seed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve, share
from vqvae2.cli.display import console, monitor
from vqvae2.cli.options import SamplingOptions, optional, output_folder, parse, require_positive
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.export.progress import grid_path
from vqvae2.export.samples import SampleRequest, export_samples
from vqvae2.messages import counted
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Draw new images. Every PNG file stores the settings that made it.

    Arguments:
        run: A run folder, or the folder or hub name of a saved pipeline.
        classes: Names or numbers of classes; all classes by default.
        count: Number of images of each class.
        seed: Seed of the first image of each class; the next images have the next seeds.
        sampling: How codes are drawn.
        keep: Fraction of the samples that is written, for instance 0.1. COUNT / KEEP samples of
            each class are drawn, and those that --judge is most sure of are written: classifier
            rejection.
        judge: The classifier for --keep: path or URL of a TorchScript file with the same classes,
            hub:NAME, or own to train one on the images of the run.
        out: Folder for the images; RUN/samples by default, ./samples for a saved pipeline.
        batch: Number of images at a time. It limits the memory and changes no image.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    classes: Annotated[tuple[str, ...], optional("CLASS ...")] = ()
    count: int = 8
    seed: int = 0
    sampling: Annotated[SamplingOptions, tyro.conf.arg(name="")] = field(
        default_factory=SamplingOptions
    )
    keep: float = 1.0
    judge: Annotated[str, optional("NETWORK")] = ""
    out: Annotated[str, optional("FOLDER")] = ""
    batch: int = 64
    device: Annotated[str, tyro.conf.arg(metavar="DEVICE")] = AUTO


def main(arguments: list[str]) -> None:
    """Draws samples and writes them."""
    options = parse(Options, "sample", arguments)
    check(options)
    world, device = share(resolve(options.device))
    console.quiet = not world.is_main
    pipeline = Pipeline.open(options.run).to(device)
    request = SampleRequest(
        labels=labels_of(pipeline, options.classes),
        num_images=options.count,
        seed=options.seed,
        keep=options.keep,
        sampling=options.sampling.resolve(pipeline),
        batch_size=options.batch,
        source=options.run,
    )
    judge = None
    if options.keep < 1:
        judge = extractor_for(RunFolder(Path(options.run)), options.judge, "", device)
    folder = output_folder(options.out, options.run, "samples")
    with monitor(world.is_main) as view:
        for progress in export_samples(pipeline, request, folder, judge, world):
            view.track("samples", progress.done, progress.total)
    written = counted(request.num_images * len(request.labels), "image")
    selected = f" of {request.total:,}, selected by {judge.name}," if judge else ""
    console.print(f"{written}{selected} in {folder}; image grid: {grid_path(folder)}")


def check(options: Options) -> None:
    """Raises ValueError for options that cannot be used."""
    require_positive("count", options.count)
    require_positive("batch", options.batch)
    if not 0 < options.keep <= 1:
        raise ValueError(f"--keep is a fraction of the samples, in (0, 1], got {options.keep:g}.")
    if options.keep < 1 and not options.judge:
        raise ValueError("--keep below 1 needs a classifier that selects: give --judge NETWORK.")


def labels_of(pipeline: Pipeline, classes: tuple[str, ...]) -> tuple[int, ...]:
    """The labels of the named classes, each once; of all classes where none is named."""
    labels = pipeline.labels(classes).tolist()
    return tuple(dict.fromkeys(labels)) or tuple(range(max(1, len(pipeline.config.class_names))))
