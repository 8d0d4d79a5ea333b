"""`vqvae2 sample`: new pictures from a run, by class and seed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor
from vqvae2.configuration import to_dict
from vqvae2.likelihood import Draw
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import save_png, sheet, to_pil
from vqvae2.training.run import RunFolder

CLASSES_ON_A_SHEET = 20


@dataclass(frozen=True)
class Options:
    """Draw new pictures; each PNG carries the settings that made it.

    Arguments:
        run: A run folder, or a folder or hub name of a saved pipeline.
        classes: Class names or numbers; all of them by default.
        count: Pictures of each class.
        seed: Of the first picture of each class; the next have the next seeds.
        temperature: One for all levels or one a level, coarsest first; 0 takes the likeliest.
        top_k: Draw from the most probable codes only; likewise.
        top_p: Draw from the codes that together have this probability; likewise.
        out: Where to; RUN/samples by default.
        batch: Pictures at a time; bounds memory, changes no picture.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[str, tyro.conf.Positional]
    classes: tuple[str, ...] = ()
    count: int = 8
    seed: int = 0
    temperature: tuple[float, ...] = ()
    top_k: tuple[int, ...] = ()
    top_p: tuple[float, ...] = ()
    out: Path | None = None
    batch: int = 64
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses and draws."""
    options = tyro.cli(Options, prog="vqvae2 sample", args=arguments)
    device = resolve(options.device)
    pipeline = open_pipeline(options.run).to(device)
    classes = list(options.classes) or list(pipeline.config.class_names) or ["0"]
    if options.count < 1:
        raise ValueError(f"--count must be at least 1 picture, got {options.count}.")
    draws = drawing(pipeline, options)
    labels = [name for name in classes for _ in range(options.count)]
    seeds = [options.seed + i for _ in classes for i in range(options.count)]
    out = options.out or default_folder(options.run)
    paths = []
    rows = []
    with monitor() as view:
        parts = pipeline.sample_batches(labels, seeds, draws=draws, batch=options.batch)
        for part in parts:
            drawn = zip(part.images, part.labels.tolist(), part.seeds, strict=True)
            for image, label, seed in drawn:
                name = class_name(pipeline, label)
                settings = {"class": name, "seed": seed, "draws": to_dict(tuple(draws))}
                settings["run"] = options.run
                paths.append(out / f"{file_name(name)}-{seed:05d}.png")
                save_png(paths[-1], to_pil(image), settings)
                rows.append(image)
            view.pictures("sampling", len(paths), len(labels))
    names = [class_name(pipeline, int(pipeline.labels([name])[0])) for name in classes]
    images = [rows[i * options.count : (i + 1) * options.count] for i in range(len(classes))]
    grid = out / "sheet.png"
    save_sheet(grid, images, names)
    console.print(f"{len(paths)} pictures in {out}, all on {grid}")


def save_class_sheet(folder: RunFolder, pictures_a_class: int, device: str) -> Path:
    """A labelled sheet of samples of a run, a row a class, seeds 0, 1, 2, ...; its path."""
    pipeline = Pipeline.load(folder.path).to(device)
    names = list(pipeline.config.class_names[:CLASSES_ON_A_SHEET]) or ["0"]
    labels = [name for name in names for _ in range(pictures_a_class)]
    seeds = list(range(pictures_a_class)) * len(names)
    samples = pipeline.sample(labels, seeds)
    path = folder.path / "samples" / "sheet.png"
    save_sheet(path, list(samples.images.split(pictures_a_class)), names)
    return path


def save_sheet(path: Path, rows: list, names: list[str]) -> None:  # type: ignore[type-arg]
    """Rows of pictures with their class names."""
    import torch

    stacked = [torch.stack(list(row)) for row in rows]
    scale = max(1, 64 // stacked[0].shape[2])
    save_png(path, sheet(stacked, names, scale=scale))


def open_pipeline(name: str) -> Pipeline:
    """The pipeline of a run folder, of a saved folder, or of the hub."""
    if (Path(name) / "model").is_dir():
        return Pipeline.load(name)
    if Path(name).is_dir() and not (Path(name) / "autoencoder").is_dir():
        return Pipeline.load(name)
    return Pipeline.from_pretrained(name)


def drawing(pipeline: Pipeline, options: Options) -> list[Draw]:
    """How each level is drawn: the model's own settings with the options on top."""
    levels = pipeline.autoencoder.config.num_levels
    draws = list(pipeline.config.draws) or [Draw()] * levels
    for field in ("temperature", "top_k", "top_p"):
        values = getattr(options, field)
        if not values:
            continue
        if len(values) not in (1, levels):
            raise ValueError(
                f"--{field.replace('_', '-')} takes one value or one a level ({levels}), got "
                f"{len(values)}."
            )
        each = values * levels if len(values) == 1 else values
        draws = [replace(draw, **{field: v}) for draw, v in zip(draws, each, strict=True)]
    return draws


def class_name(pipeline: Pipeline, label: int) -> str:
    """A label's name."""
    names = pipeline.config.class_names
    return names[label] if names else "picture"


def file_name(name: str) -> str:
    """A class name as part of a file's name."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "class"


def default_folder(run: str) -> Path:
    """Where samples go unless told."""
    return Path(run) / "samples" if Path(run).is_dir() else Path("samples")
