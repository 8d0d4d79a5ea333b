"""`vqvae2 train`: all stages, from images to priors and a sheet of samples."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import tyro

from vqvae2.cli.display import Stopper, console, monitor, show_figures, table
from vqvae2.cli.options import change, parse_known
from vqvae2.data.images import ImageSplits, open_images
from vqvae2.evaluation.evaluation import evaluate
from vqvae2.export.samples import export_class_grid
from vqvae2.messages import counted, duration, shortened
from vqvae2.pipeline import Pipeline
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import find_preset
from vqvae2.training.session import TrainingSession, new_accelerator
from vqvae2.training.stage import Stage
from vqvae2.training.stages import train as train_stages

DEFAULT_PRESET = "images64"
SAMPLES_PER_CLASS = 8


@dataclass(frozen=True)
class Options:
    """Train an autoencoder, then a prior for each level of its codes.

    Repeat the same command to go on after a stop of any kind; for a run that was begun --run is
    enough. Any field of the preset can be changed: --autoencoder.training.steps
    20000, --autoencoder.model.channels 64, --levels.0.prior.dropout 0.3; --help-config lists them.

    Arguments:
        preset: A complete configuration by name, see `vqvae2 presets` (images64 by default).
        data: A folder of images (a sub-folder a class gives labels), Parquet files, WebDataset
            shards (here or at s3://, https://, ...; --data.stream reads large ones where they
            lie), the name of a hub data set, or "synthetic" for the built-in images.
        run: The run folder (runs/NAME-PRESET by default).
        stage: One stage alone.
        tracker: Also log to one of accelerate's trackers; its package must be installed.
        help_config: List every field that can be changed, and stop.
    """

    preset: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    data: Annotated[str, tyro.conf.arg(metavar="WHERE")] = ""
    run: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    stage: Literal["all", "autoencoder", "codes", "priors"] = "all"
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    help_config: Annotated[
        bool, tyro.conf.arg(name="help-config"), tyro.conf.FlagCreatePairsOff
    ] = False


def main(arguments: list[str]) -> None:
    """Parses and trains."""
    options, changes = parse_known(Options, "train", arguments)
    folder, run = resolve(options, changes)
    train(folder, run, options)


def resolve(options: Options, changes: list[str]) -> tuple[RunFolder, RunConfig]:
    """The run that the options mean, before its images are known."""
    start = starting_point(options)
    run = change(start, "train", ["--help"] if options.help_config else changes)
    if run.num_classes != start.num_classes or run.preset != start.preset:
        raise ValueError("preset and num_classes are no options: the images tell the classes.")
    if Path(run.data.source).exists():
        # As an absolute path, so that other commands find the images from anywhere.
        source = str(Path(run.data.source).resolve())
        run = replace(run, data=replace(run.data, source=source))
    name = re.sub(r"[*?\[\]]+", "", Path(run.data.source).stem).strip("-_.") or "run"
    return RunFolder(Path(options.run or f"runs/{name}-{run.preset}")), run


def starting_point(options: Options) -> RunConfig:
    """The run that was begun there, or the preset, with --data in its place."""
    begun = RunFolder(Path(options.run))
    if options.run and not options.preset and (begun.path / "config.json").exists():
        run = begun.read()
        return replace(run, data=replace(run.data, source=options.data or run.data.source))
    if not options.preset and not options.data and not options.help_config:
        missing = f"{options.run} was not begun yet" if options.run else "Nothing to train"
        raise ValueError(f"{missing}: give --data FOLDER, and --preset NAME for another preset.")
    preset = find_preset(options.preset or DEFAULT_PRESET)
    run = preset(options.data) if options.data else preset()
    if run.data.source != "synthetic" and not options.data and not options.help_config:
        raise ValueError(f"The preset {run.preset} needs images: give --data FOLDER.")
    return run


def train(folder: RunFolder, run: RunConfig, options: Options) -> None:
    """Trains what is not trained yet, then draws a sheet of samples and prints the figures."""
    accelerator = new_accelerator(run, folder, find_tracker(options.tracker))
    main_process = accelerator.is_main_process
    begun = time.monotonic()
    with monitor(shown=main_process) as view:
        data = open_images(run.data, progress=view.track)
        run = replace(run, num_classes=max(1, len(data.class_names)))
        if main_process:
            tell(folder, run, data)
        with closing(data), Stopper(f"vqvae2 train --run {folder.path}") as stopper:
            session = TrainingSession(folder, run, data, accelerator, stopper)
            for event in train_stages(session, chosen(options.stage)):
                view.show(event)
    accelerator.end_training()
    if main_process:
        rows = [[stage, duration(seconds)] for stage, seconds in view.seconds.items()]
        rows.append(["all", duration(time.monotonic() - begun)])
        table("time of this call", ["stage", "time"], rows)
        if options.stage == "all":
            finish(folder, bool(view.learnt), str(accelerator.device))


def finish(folder: RunFolder, has_trained: bool, device: str) -> None:
    """Measures the run, draws a grid of samples, and prints what to do next."""
    grid = folder.path / "samples" / "grid.png"
    if has_trained or not folder.read_metrics():
        show_figures(evaluate(folder, 2000, device))
        pipeline = Pipeline.open(folder.path).to(device)
        with monitor() as view:
            for progress in export_class_grid(pipeline, grid, SAMPLES_PER_CLASS):
                view.track("samples", progress.done, progress.total)
    else:
        console.print(
            "Everything was trained before; these are the results of the last evaluation."
        )
        show_figures(folder.read_metrics())
    console.print(f"\nrun       {folder.path}")
    console.print(f"samples   {grid}")
    console.print(f"next      vqvae2 sample {folder.path}   or   vqvae2 report {folder.path}")


def tell(folder: RunFolder, run: RunConfig, data: ImageSplits) -> None:
    """What is about to be trained on, and which images cannot be used."""
    console.print(
        f"{folder.path}: preset {run.preset}, {counted(len(data.train), 'image')} to train on, "
        f"{len(data.validation):,} held out, {counted(len(data.class_names), 'class', 'classes')}"
    )
    if not data.class_names:
        console.print(
            "No labels: samples will not be of a chosen class. A sub-folder a class gives labels.",
            style="yellow",
        )
    splits = (data.train, data.validation)
    skipped = [f"{name} ({why})" for split in splits for name, why in split.reasons.items()]
    if skipped:
        text = f"{counted(len(skipped), 'image')} cannot be used: {shortened(skipped)}"
        console.print(text, style="yellow")


def chosen(group: str) -> Callable[[Stage], bool]:
    """The stages of a run that `--stage` selects."""
    return lambda stage: group in ("all", stage.group)


def find_tracker(name: str) -> str | None:
    """The tracker's name, if there is one and its package is installed."""
    if name == "none":
        return None
    if find_spec(name) is None:
        raise ValueError(f"--tracker {name} needs its package: pip install {name}.")
    return name
