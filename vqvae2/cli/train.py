"""`vqvae2 train`: from images to an autoencoder, priors and a grid of samples."""

import re
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from vqvae2.cli.display import (
    console,
    monitor,
    show_metrics,
    show_skipped,
    stop_on_signal,
    table,
)
from vqvae2.cli.options import change, optional, parse_known
from vqvae2.data.config import DataConfig
from vqvae2.data.images import ImageSplits, open_images
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.validation import evaluate
from vqvae2.export.progress import grid_path
from vqvae2.export.samples import export_class_grid
from vqvae2.messages import counted, did_you_mean, duration
from vqvae2.runs.budget import preset_name
from vqvae2.runs.config import RunConfig
from vqvae2.runs.config_file import read_config
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import PRESETS, find_preset
from vqvae2.training.estimate import estimate_seconds
from vqvae2.training.planning import design_run, plan_run
from vqvae2.training.session import Event, TrainingSession, new_accelerator
from vqvae2.training.stage import Stage
from vqvae2.training.stages import stages, train_run

DEFAULT_PRESET = "images64"
SYNTHETIC = "synthetic"
SAMPLES_PER_CLASS = 8
EVALUATED_IMAGES = 2000
ALL_STAGES = "all"


@dataclass(frozen=True)
class Options:
    """Train an autoencoder, a sharp decoder if configured, and a prior for each level of codes.

    Repeat the same command to continue after any interruption; --run alone is enough then.

    Any field of the preset can be changed, for instance --autoencoder.training.steps 20000,
    --autoencoder.model.channels 64 or --levels.0.prior.dropout 0.3. --help-config lists the
    fields.

    Arguments:
        hours: Plan a run that takes this long on this machine, in place of a preset: the size of
            the images and of the models, the steps of all stages. Parts of an hour are allowed.
        preset: Name of a complete configuration; `vqvae2 presets` lists them. The default is
            images64.
        config: A .toml or .json file with the configuration, or with changes of the preset that it
            names. `vqvae2 presets NAME` can print one to begin from.
        data: A folder of images (one sub-folder per class gives labels), Parquet files, WebDataset
            shards (local, or at s3://, https://, ...), the name of a data set on the hub, or the
            word synthetic for the built-in images. With --data.stream, large shards are read
            where they are.
        run: The run folder; runs/NAME-PRESET by default.
        stage: Train one stage alone: autoencoder, codes, decoder or priors.
        tracker: Also log to this tracker; its package must be installed.
        help_config: List every field that can be changed, and stop.
    """

    hours: Annotated[float, optional("NUMBER")] = 0.0
    preset: Annotated[str, optional("NAME")] = ""
    config: Annotated[str, optional("FILE")] = ""
    data: Annotated[str, optional("SOURCE")] = ""
    run: Annotated[str, optional("FOLDER")] = ""
    stage: Annotated[str, tyro.conf.arg(metavar="STAGE")] = ALL_STAGES
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    help_config: Annotated[
        bool, tyro.conf.arg(name="help-config"), tyro.conf.FlagCreatePairsOff
    ] = False


def main(arguments: list[str]) -> None:
    """Trains, measures and samples."""
    options, changes = parse_known(Options, "train", arguments)
    folder, config = resolve(options, changes)
    train(folder, config, options)


def resolve(options: Options, changes: list[str]) -> tuple[RunFolder, RunConfig]:
    """The run that the options name; its number of classes is not known yet.

    With hours, a new run is designed, and its steps are not planned yet.
    """
    start = initial_config(options)
    config = change(start, "train", ["--help"] if options.help_config else changes)
    if config.num_classes != start.num_classes or config.preset != start.preset:
        raise ValueError("preset and num_classes cannot be changed: the images give the classes.")
    if Path(config.data.source).exists():
        # As an absolute path, so that other commands find the images from anywhere.
        source = str(Path(config.data.source).resolve())
        config = replace(config, data=replace(config.data, source=source))
    return folder_of(options, config.data.source, config.preset), config


def folder_of(options: Options, source: str, preset: str) -> RunFolder:
    """The run folder that is given, or else one named after the images and the preset."""
    name = re.sub(r"[*?\[\]]+", "", Path(source).stem).strip("-_.") or "run"
    return RunFolder(Path(options.run or f"runs/{name}-{preset}"))


def initial_config(options: Options) -> RunConfig:
    """The config of the run in the folder, or else of the preset, with the data of the options."""
    if options.config:
        return config_of_file(options)
    if options.hours:
        return config_for_hours(options)
    folder = RunFolder(Path(options.run))
    if options.run and not options.preset and folder.exists():
        return with_source(folder.read(), options.data)
    if not options.preset and not options.data and not options.help_config:
        missing = f"{options.run} is not a run yet" if options.run else "Nothing to train"
        raise ValueError(f"{missing}: give --data FOLDER, or --preset NAME with built-in images.")
    preset = find_preset(options.preset or DEFAULT_PRESET)
    config = preset(options.data) if options.data else preset()
    if config.data.source != SYNTHETIC and not options.data and not options.help_config:
        raise ValueError(f"The preset {config.preset} needs images: give --data FOLDER.")
    return config


def config_of_file(options: Options) -> RunConfig:
    """The config in a file, with the data of the options."""
    for name, given in (("hours", options.hours), ("preset", options.preset)):
        if given:
            raise ValueError(
                f"--config FILE holds the whole configuration, got --{name} {given}, too; leave "
                "one of them out."
            )
    config = with_source(read_config(Path(options.config)), options.data)
    source, preset = config.data.source, PRESETS.get(config.preset)
    is_example = preset is not None and source == preset().data.source != SYNTHETIC
    if is_example and not Path(source).exists() and not options.help_config:
        raise ValueError(
            f"{options.config} names no images: give --data FOLDER, or set source in [data]."
        )
    return config


def config_for_hours(options: Options) -> RunConfig:
    """The config of the run in the folder, or else a new design for the hours of the options."""
    name = preset_name(options.hours)
    if options.preset:
        raise ValueError(
            f"--hours plans its own configuration, got --preset {options.preset}, too; leave one "
            "of them out."
        )
    folder = folder_of(options, options.data, name)
    if folder.exists():
        config = folder.read()
        if config.preset != name:
            raise ValueError(
                f"{folder.path} was begun as {config.preset}, and --hours {options.hours:g} would "
                "plan it anew; leave out --hours to continue it, or use another --run."
            )
        return with_source(config, options.data)
    if not options.data:
        raise ValueError("--hours needs images: give --data FOLDER.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with monitor():
        return design_run(DataConfig(source=options.data), options.hours, device)


def with_source(config: RunConfig, source: str) -> RunConfig:
    """The config with another source of the same images, where one is given."""
    return replace(config, data=replace(config.data, source=source or config.data.source))


def train(
    folder: RunFolder,
    config: RunConfig,
    options: Options,
    callback: Callable[[Event], None] | None = None,
) -> None:
    """Trains what is not trained yet, prints metrics and writes a grid of samples.

    Arguments:
        folder: of the run.
        config: of `resolve`.
        options: of the command.
        callback: called with every event.
    """
    select = stage_filter(options.stage, config)
    accelerator = new_accelerator(config, folder, find_tracker(options.tracker))
    is_main, begin = accelerator.is_main_process, time.monotonic()
    command = f"vqvae2 train --run {folder.path}"
    with monitor(is_main) as view:
        splits = open_images(config.data, progress=view.track)
        config = fitted(config, splits, is_main)
        if is_main:
            show_data(folder, config, splits)
        with closing(splits), stop_on_signal(command) as should_stop:
            session = TrainingSession(folder, config, splits, accelerator, should_stop)
            if options.hours and not folder.exists():
                spent = time.monotonic() - begin
                session = view.follow(plan_run(session, options.hours, spent))
                if is_main:
                    show_plan(session.config)
            if is_main:
                show_stages(session)
            for event in train_run(session, select):
                view.show(event)
                if callback is not None:
                    callback(event)
    accelerator.end_training()
    if is_main:
        rows = [[stage, duration(seconds)] for stage, seconds in view.seconds.items()]
        rows.append(["total", duration(time.monotonic() - begin)])
        table("Time of this call", ["stage", "time"], rows)
        if options.stage == ALL_STAGES:
            finish(folder, view.has_trained, str(accelerator.device))


def fitted(config: RunConfig, splits: ImageSplits, is_main: bool) -> RunConfig:
    """The config with the classes of the images, and with batches that their number allows."""
    config = config.with_classes(max(1, len(splits.class_names)))
    result = config.with_batches_within(len(splits.train))
    if result != config and is_main:
        console.print(
            f"Batches are smaller than configured: there are {len(splits.train)} training images.",
            style="yellow",
        )
    return result


def finish(folder: RunFolder, has_trained: bool, device: str) -> None:
    """Measures the run, writes a grid of samples, and prints what to do next."""
    grid = grid_path(folder.path / "samples")
    if has_trained or not folder.read_metrics():
        with monitor() as view:
            evaluation = Evaluation.open(folder, device, progress=view.track)
            show_metrics(evaluate(evaluation, EVALUATED_IMAGES))
            for progress in export_class_grid(evaluation.pipeline, grid, SAMPLES_PER_CLASS):
                view.track("samples", progress.done, progress.total)
    else:
        console.print("Everything was trained before. Results of the last evaluation:")
        show_metrics(folder.read_metrics())
    console.print(f"\nrun       {folder.path}")
    console.print(f"samples   {grid}")
    console.print(f"next      vqvae2 sample {folder.path}   or   vqvae2 report {folder.path}")


def show_data(folder: RunFolder, config: RunConfig, splits: ImageSplits) -> None:
    """Prints what is trained on what, and which images cannot be used."""
    console.print(
        f"{folder.path}: preset {config.preset}, {counted(len(splits.train), 'training image')}, "
        f"{counted(len(splits.validation), 'validation image')}, "
        f"{counted(len(splits.class_names), 'class', 'classes')}"
    )
    if not splits.class_names:
        console.print(
            "The images have no labels, so samples cannot be requested by class. One sub-folder "
            "per class gives labels.",
            style="yellow",
        )
    reasons = splits.train.reasons | splits.validation.reasons
    if reasons:
        console.print(f"{counted(len(reasons), 'image')} cannot be used:", style="yellow")
        show_skipped(reasons)


def show_stages(session: TrainingSession) -> None:
    """Prints the stages with their steps, and how long they will take together, roughly."""
    rows, total, folder = [], 0, session.folder
    for stage in stages(session.config):
        if (training := stage.training) is not None:
            state = "done" if stage.done(folder) else ""
            rows.append([stage.title, f"{training.steps:,}", f"{training.batch:,}", state])
            total += training.steps
    rows.append(["total", f"{total:,}", "", ""])
    table("Stages", ["stage", "steps", "batch", ""], rows)
    if session.budget is not None:
        console.print("Before each stage, the time that is left is divided anew.")
    elif not folder.exists():  # before anything is trained
        least, most = estimate_seconds(session.config, session.world)
        span = (
            f"about {duration(least)} to {duration(most)}" if most > 60 else "less than a minute"
        )
        console.print(f"All steps together take {span} here.")


def show_plan(config: RunConfig) -> None:
    """Prints what was chosen for the hours."""
    grids = " + ".join(f"{g.height}x{g.width} of {g.num_codes}" for g in config.grids())
    console.print(f"Planned: images of {config.data.size} pixels, codes {grids}.")


def stage_filter(group: str, config: RunConfig) -> Callable[[Stage], bool]:
    """Selects the stages that `--stage` names."""
    groups = dict.fromkeys([ALL_STAGES, *(stage.group for stage in stages(config))])
    if group not in groups:
        raise ValueError(f"Unknown stage {group!r}; {did_you_mean(group, groups)}")
    return lambda stage: group in (ALL_STAGES, stage.group)


def find_tracker(name: str) -> str | None:
    """The name of a tracker whose package is installed; None for "none"."""
    if name == "none":
        return None
    if find_spec(name) is None:
        raise ValueError(f"--tracker {name} needs its package: pip install {name}.")
    return name
