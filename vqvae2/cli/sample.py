"""`vqvae2 sample`: new images from a run, by class and seed."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor

from vqvae2.cli.device import AUTO, resolve, share
from vqvae2.cli.display import Monitor, console, count, monitor
from vqvae2.cli.options import parse
from vqvae2.configuration import to_json
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.samples import extractor_of
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import read_png, save_png
from vqvae2.metrics.rejection import best_of, best_of_all
from vqvae2.pipeline import Pipeline, Samples
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig

CLASSES_ON_A_SHEET, IMAGES_A_ROW = 20, 16


@dataclass(frozen=True)
class Options:
    """Draw new images; each PNG carries the settings that made it.

    Arguments:
        run: A run folder, or a folder or hub name of a saved pipeline.
        classes: Class names or numbers; all of them by default.
        count: Images of each class.
        seed: Of the first image of each class; the next have the next seeds.
        temperature: One for all levels or one a level, coarsest first; 0 takes the likeliest.
        top_k: Draw from the most probable codes only; likewise.
        top_p: Draw from the codes that together have this probability; likewise.
        keep: Part of the samples that is kept, those that --judge finds most like their class; so
            many more are drawn (classifier rejection).
        judge: Path or URL of a TorchScript classifier of the same classes, hub:NAME, or own for
            one trained on the run's images.
        out: Where to; RUN/samples by default, ./samples for a pipeline that is no run.
        batch: Images at a time; bounds memory, changes no image.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    classes: tuple[str, ...] = ()
    count: int = 8
    seed: int = 0
    temperature: tuple[float, ...] = ()
    top_k: tuple[int, ...] = ()
    top_p: tuple[float, ...] = ()
    keep: float = 1.0
    judge: Annotated[str, tyro.conf.arg(metavar="NETWORK")] = ""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    batch: int = 64
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses and draws."""
    options = parse(Options, "sample", arguments)
    at_least_one("count", options.count)
    at_least_one("batch", options.batch)
    world, device = share(resolve(options.device))
    console.quiet = not world.is_main
    pipeline = open_pipeline(options.run).to(device)
    sampling = drawing(pipeline, options.temperature, options.top_k, options.top_p)
    numbers = list(dict.fromkeys(wanted_classes(pipeline, options.classes)))
    each = number_to_draw(options)
    labels = torch.tensor(numbers).repeat_interleave(each)
    seeds = torch.arange(options.seed, options.seed + each).repeat(len(numbers))
    own = world.shard_nonempty(torch.arange(len(labels)))
    out = Path(options.out) if options.out else output_folder(options.run, "samples")

    def save(image: Tensor, label: int, seed: int, extra: dict[str, Any]) -> None:
        settings = {
            "class": class_name(pipeline, label),
            "seed": seed,
            "sampling": to_json(tuple(sampling)),
            "run": options.run,
            **extra,
        }
        save_png(out / png_name(pipeline, label, seed), to_pil(image), settings)

    judge = None
    if options.keep < 1:
        judge = extractor_of(options.judge, "", RunFolder(Path(options.run)), device)
    kept = list(zip(labels.tolist(), seeds.tolist(), strict=True))
    with monitor(world.is_main) as view:
        drawn = pipeline.sample_batches(
            labels[own], seeds[own].tolist(), sampling=sampling, batch=options.batch
        )
        parts = watched(drawn, len(own), view)
        if judge is None:
            for part in parts:
                for image, label, seed in zip(
                    part.images, part.labels.tolist(), part.seeds, strict=True
                ):
                    save(image, label, seed, {})
        else:
            classes = max(1, len(pipeline.config.class_names))
            found = best_of(parts, judge, classes, options.count)
            kept = best_of_all(found, options.count, world)
            best = set(kept)
            for chosen in found:
                if (chosen.label, chosen.seed) in best:
                    verdict = {"judge": judge.name, "score": chosen.score}
                    save(chosen.image, chosen.label, chosen.seed, verdict)
    world.barrier()
    if world.is_main:
        grid = save_grid(pipeline, out, numbers[:CLASSES_ON_A_SHEET], kept)
        of = f" of {len(labels):,}, the best by {judge.name}," if judge else ""
        console.print(f"{count(len(kept), 'image')}{of} in {out}, together on {grid}")


def save_grid(
    pipeline: Pipeline, out: Path, shown: list[int], kept: list[tuple[int, int]]
) -> Path:
    """A sheet of the first samples of some classes, from their files; its path.

    Arguments:
        shown: the classes.
        kept: (label, seed) of each that was saved.
    """
    rows = []
    for number in shown:
        seeds = [seed for label, seed in kept if label == number][:IMAGES_A_ROW]
        rows.append([read_png(out / png_name(pipeline, number, seed)) for seed in seeds])
    path = out.with_name(f"{out.name}-sheet.png")
    save_rows(path, rows, [class_name(pipeline, number) for number in shown])
    return path


def png_name(pipeline: Pipeline, label: int, seed: int) -> str:
    """The name of a sample's file."""
    return f"{file_name(pipeline, label)}-{seed:05d}.png"


def number_to_draw(options: Options) -> int:
    """Samples of each class that are drawn, so that `count` are kept."""
    if not 0 < options.keep <= 1:
        raise ValueError(f"--keep is a part of the samples, in (0, 1], got {options.keep:g}.")
    if options.keep < 1 and not options.judge:
        raise ValueError("--keep below 1 needs a classifier to choose by: give --judge NETWORK.")
    return math.ceil(options.count / options.keep - 1e-9)


def watched(parts: Iterator[Samples], total: int, view: Monitor) -> Iterator[Samples]:
    """The parts, with progress as they come."""
    done = 0
    for part in parts:
        yield part
        done += len(part.images)
        view.track("sampling", done, total)


def save_class_sheet(folder: RunFolder, images_a_class: int, device: str) -> Path:
    """A sheet of samples of a run, a row a class, seeds 0, 1, 2, ...; its path."""
    pipeline = Pipeline.load(folder.path).to(device)
    names = pipeline.config.class_names
    numbers = evenly_spaced(len(names), CLASSES_ON_A_SHEET).tolist() or [0]
    labels = [number for number in numbers for _ in range(images_a_class)]
    samples = pipeline.sample(labels, list(range(images_a_class)) * len(numbers))
    path = folder.path / "samples" / "sheet.png"
    rows = torch.split(samples.images.cpu(), images_a_class)
    save_rows(path, rows, [class_name(pipeline, number) for number in numbers])
    return path


def save_rows(path: Path, rows: Sequence[Iterable[Tensor]], names: list[str]) -> None:
    """Rows of images with their class names, enlarged to at least 64 pixels."""
    stacked = [torch.stack(list(row)) for row in rows]
    save_png(path, image_grid(stacked, names, scale=max(1, 64 // stacked[0].shape[2])))


def open_pipeline(name: str) -> Pipeline:
    """The pipeline of a run folder, of a saved folder, or of the hub."""
    if Path(name).is_dir() and not (Path(name) / "autoencoder").is_dir():
        return Pipeline.load(name)
    return Pipeline.from_pretrained(name)


def wanted_classes(pipeline: Pipeline, names: Sequence[str]) -> list[int]:
    """The labels of the names, or of all classes."""
    numbers: list[int] = pipeline.labels(names).tolist()
    return numbers or list(range(max(1, len(pipeline.config.class_names))))


def drawing(
    pipeline: Pipeline,
    temperature: tuple[float, ...],
    top_k: tuple[int, ...],
    top_p: tuple[float, ...],
) -> list[SamplingConfig]:
    """How each level is drawn: the model's own settings with the options on top."""
    levels = pipeline.autoencoder.config.num_levels
    sampling = list(pipeline.config.sampling) or [SamplingConfig()] * levels
    options: dict[str, tuple[Any, ...]] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    for field, values in options.items():
        if not values:
            continue
        if len(values) not in (1, levels):
            raise ValueError(
                f"--{field.replace('_', '-')} takes one value or one a level ({levels}), got "
                f"{len(values)}."
            )
        each = values * levels if len(values) == 1 else values
        sampling = [replace(draw, **{field: v}) for draw, v in zip(sampling, each, strict=True)]
    return sampling


def class_name(pipeline: Pipeline, label: int) -> str:
    """A label's name."""
    names = pipeline.config.class_names
    return names[label] if names else "image"


def file_name(pipeline: Pipeline, label: int) -> str:
    """A class name as part of a file's name; with its number where another looks the same."""
    names = [safe(name) for name in pipeline.config.class_names] or ["image"]
    return names[label] if names.count(names[label]) == 1 else f"{names[label]}-{label}"


def safe(name: str) -> str:
    """A name without what file systems do not like."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "class"


def output_folder(run: str, name: str) -> Path:
    """Where results go unless told: into a run folder, else beside where one stands."""
    return (
        Path(run) / name
        if (Path(run) / "config.json").is_file() and (Path(run) / "model").is_dir()
        else Path(name)
    )


def at_least_one(option: str, value: int) -> None:
    """Raises ValueError for an option that must be positive."""
    if value < 1:
        raise ValueError(f"--{option} must be at least 1, got {value}.")
