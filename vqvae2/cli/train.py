"""`vqvae2 train`: all stages, from pictures to priors and a sheet of samples."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from vqvae2.cli.display import Stopper, console, monitor, table
from vqvae2.cli.sample import save_class_sheet
from vqvae2.data.images import PictureData, open_pictures
from vqvae2.presets import PRESETS, find_preset
from vqvae2.training.config import Run
from vqvae2.training.evaluate import evaluate
from vqvae2.training.job import Job, Stopped
from vqvae2.training.run import RunFolder

DEFAULT_PRESET = "images64"


@dataclass(frozen=True)
class Options:
    """Train an autoencoder, then a prior for each level of its codes.

    Repeat the same command to go on after a stop of any kind; for a run that was begun `--run` is
    enough. Any field of the preset can be changed: `--stage1.train.steps 20000`,
    `--autoencoder.channels 64`, `--priors.0.dropout 0.3`; `--help-config` lists them.

    Arguments:
        preset: A complete configuration by name (see `vqvae2 presets`); images64 by default.
        data: A folder of pictures (a sub-folder a class gives labels), Parquet files, WebDataset
            shards, the name of a hub data set, or "synthetic" for the built-in pictures.
        run: The run folder; runs/NAME-PRESET by default.
        stage: One stage alone: stage1, codes, or priors.
        tracker: Also log to one of accelerate's trackers (it must be installed).
        help_config: List every field that can be changed, and stop.
    """

    preset: str | None = None
    data: str | None = None
    run: Path | None = None
    stage: Literal["all", "stage1", "codes", "priors"] = "all"
    tracker: Literal["none", "tensorboard", "wandb", "mlflow"] = "none"
    help_config: Annotated[bool, tyro.conf.arg(name="help-config")] = False


def main(arguments: list[str]) -> None:
    """Parses and trains."""
    options, changes = tyro.cli(
        Options, prog="vqvae2 train", args=arguments, return_unknown_args=True
    )
    folder, run = resolve(options, changes)
    train(folder, run, options)


def resolve(options: Options, changes: list[str]) -> tuple[RunFolder, Run]:
    """The run that the options mean, before its pictures are known."""
    if options.run is not None and (options.run / "config.json").exists():
        begun = RunFolder(options.run)
        if options.preset is None and options.data is None and not changes:
            return begun, begun.read()
    if options.preset is None and options.data is None and not options.help_config:
        raise ValueError(
            "Nothing to train: give --data FOLDER (and --preset), or --run of a begun run."
        )
    preset = find_preset(options.preset or DEFAULT_PRESET)
    run = preset() if options.data is None else preset(options.data)
    args = ["--help"] if options.help_config else changes
    changed = tyro.cli(Run, default=run, args=args, prog="vqvae2 train")
    name = Path(run.data.source).name or "run"
    return RunFolder(options.run or Path("runs") / f"{name}-{run.preset}"), changed


def train(folder: RunFolder, run: Run, options: Options) -> None:
    """Trains what is not trained yet, then draws a sheet of samples and prints the figures."""
    from accelerate import Accelerator

    tracker = None if options.tracker == "none" else options.tracker
    accelerator = Accelerator(
        mixed_precision=precision(run),
        log_with=tracker,
        project_dir=str(folder.path),
        kwargs_handlers=ddp_settings(),
    )
    accelerator.init_trackers("vqvae2")
    started = time.monotonic()
    with Stopper() as stopper, monitor() as view:
        data = open_pictures(run.data, progress=view.pictures)
        run = replace(run, num_classes=max(1, len(data.class_names)))
        folder.create(run)
        tell(folder, run, data)
        job = Job(folder, run, data, accelerator, stopper)
        try:
            for event in job.train(chosen(options.stage)):
                view.show(event)
        except Stopped:
            again = f"vqvae2 train --run {folder.path}"
            raise ValueError(f"Stopped and saved. To go on: {again}") from None
    accelerator.end_training()
    if accelerator.is_main_process:
        rows = [[stage, f"{s / 60:.1f} min"] for stage, s in view.seconds.items()]
        rows.append(["all", f"{(time.monotonic() - started) / 60:.1f} min"])
        finish(folder, options, rows, str(accelerator.device))


def finish(folder: RunFolder, options: Options, rows: list[list[str]], device: str) -> None:
    """What is shown at the end: time spent, figures, samples, where to go on."""
    table("trained in this call", ["stage", "time"], rows)
    if options.stage != "all":
        return
    metrics = evaluate(folder, 2000, device)
    show_figures(metrics)
    where = save_class_sheet(folder, 8, device)
    console.print(f"\nrun       {folder.path}")
    console.print(f"samples   {where}")
    console.print(f"go on     vqvae2 sample {folder.path}   |   vqvae2 report {folder.path}")


def show_figures(metrics: dict[str, Any]) -> None:
    """The held-out figures as a table, a row a level."""
    seen = metrics["reconstruction"]
    priors = metrics.get("priors", {})
    rows = []
    for level, used in enumerate(seen["codes_used"]):
        nats = priors.get("held_out_nats_per_code", [])
        gap = priors.get("gap_nats_per_code", [])
        rows.append(
            [
                str(level),
                f"{used:.0f} ({100 * seen['share_used'][level]:.0f} %)",
                f"{seen['perplexity'][level]:.0f}",
                f"{seen['mse_level_alone'][level]:.5f}",
                f"{nats[level]:.3f}" if level < len(nats) else "",
                f"{gap[level]:+.3f}" if level < len(gap) else "",
            ]
        )
    title = (
        f"held out, {seen['num_pictures']} pictures: MSE {seen['mse']:.5f}, "
        f"PSNR {seen['psnr_db']:.2f} dB, SSIM {seen['ssim']:.3f}"
    )
    if "held_out_bits_per_dim" in priors:
        title += f", codes {priors['held_out_bits_per_dim']:.3f} bits per dimension"
    columns = ["level", "codes used", "perplexity", "MSE alone", "nats per code", "gap"]
    table(title, columns, rows)


def tell(folder: RunFolder, run: Run, data: PictureData) -> None:
    """One line on what is about to be trained on, and one on what could not be read."""
    classes = f"{len(data.class_names)} classes" if data.class_names else "no labels"
    console.print(
        f"{folder.path}: preset {run.preset}, {len(data.train):,} pictures to train on, "
        f"{len(data.held_out):,} held out, {classes}"
    )
    skipped = [*data.train.skipped, *data.held_out.skipped]
    if skipped:
        few = ", ".join(skipped[:3]) + (", ..." if len(skipped) > 3 else "")
        console.print(f"[yellow]{len(skipped)} pictures could not be read: {few}[/yellow]")


def chosen(stage: str) -> Any:
    """Which of a job's stages `--stage` names."""
    if stage == "all":
        return lambda name: True
    return lambda name: name == stage or (stage == "priors" and name.startswith("prior"))


def precision(run: Run) -> str:
    """accelerate's name of the run's precision on this machine."""
    import torch

    if run.precision == "auto":
        return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"
    return "bf16" if run.precision == "bfloat16" else "no"


def ddp_settings() -> list[Any]:
    """Buffers are codebooks: every rank moves them itself, nobody broadcasts them."""
    from accelerate.utils import DistributedDataParallelKwargs

    return [DistributedDataParallelKwargs(broadcast_buffers=False)]


__all__ = ["PRESETS", "main", "resolve", "show_figures", "train"]
