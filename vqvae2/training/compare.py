"""Runs and folders of pictures side by side.

A set of pictures is named by one word:

    FOLDER                 all pictures in and below it: data, another model's samples, ...
    RUN or RUN:samples     pictures drawn from a run, in turn over its classes
    RUN:reconstructions    its held-out pictures after the way through the codes
    RUN:held_out, RUN:train   the pictures themselves, as the run sees them

Legend: `B` pictures, `S` their side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.images import Pictures, load_folder, open_held_out, open_pictures, picture_files
from vqvae2.data.order import at_once, spread
from vqvae2.metrics.distortion import measure_pairs
from vqvae2.metrics.features import Extractor
from vqvae2.metrics.quality import Seen, distances_between, look, look_once
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import to_float, to_uint8
from vqvae2.training.run import RunFolder

Progress = Callable[[str, int, int], None]

KINDS = ("samples", "reconstructions", "held_out", "train")
"""What can be asked of a run."""


@dataclass(frozen=True)
class PictureSet:
    """Pictures under a name, as often as asked.

    Arguments:
        name: as the user wrote it.
        count: how many there are.
        batches: the first so many, evenly spread, (B, 3, S, S) uint8.
        fingerprint: tells them from all others; "" for those that are made anew each time.
    """

    name: str
    count: int
    batches: Callable[[int], Iterator[Tensor]]
    fingerprint: str = ""


def is_run(where: str) -> bool:
    """Whether a name is that of a run folder, or of a part of one."""
    return (Path(where.rpartition(":")[0] or where) / "config.json").is_file() or (
        Path(where) / "config.json"
    ).is_file()


def open_set(
    where: str,
    size: int = 0,
    count: int = 10_000,
    device: str = "cpu",
    progress: Progress = lambda text, done, total: None,
) -> PictureSet:
    """The set of pictures that a word names.

    Arguments:
        size: S of a folder's pictures; 0 takes them as they are, of one size and square.
        count: pictures to draw, where they are drawn.
    """
    path, _, kind = where.rpartition(":")
    if kind not in KINDS or (Path(where) / "config.json").is_file():
        path, kind = where, ""
    if not (Path(path) / "config.json").is_file():
        if kind:
            RunFolder(Path(path)).read()  # says that it is no run
        side = size or natural_side(Path(path))
        return split_set(where, load_folder(path, side, progress=progress), progress)
    folder = RunFolder(Path(path))
    run = folder.read()
    if kind == "train":
        return split_set(where, open_pictures(run.data, progress=progress).train, progress)
    if kind == "held_out":
        return split_set(where, open_held_out(run.data, progress=progress), progress)
    pipeline = Pipeline.load(folder.path).to(device)
    if kind != "reconstructions":
        return sample_set(where, pipeline, count, progress)
    pictures = split_set(where, open_held_out(run.data, progress=progress), progress)

    def restored(number: int) -> Iterator[Tensor]:
        for images in pictures.batches(number):
            yield to_uint8(pipeline.reconstruct(to_float(images)))

    return PictureSet(where, pictures.count, restored)


def natural_side(folder: Path) -> int:
    """The side of a folder's pictures, if they are square and of one size."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    for path in picture_files(folder):
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        except OSError:
            continue  # named and counted when it is decoded
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(
            f"The pictures in {folder} are not squares of one size ({shown}"
            f"{', ...' if len(sizes) > 3 else ''}); give --size to crop and resize all sets to it."
        )
    return next(iter(sizes))[0]


def split_set(where: str, pictures: Pictures, progress: Progress) -> PictureSet:
    """Pictures of a data set."""

    def batches(number: int) -> Iterator[Tensor]:
        done = 0
        for indices in spread(len(pictures), number).split(at_once(pictures.size)):
            yield pictures.batch(indices)
            done += len(indices)
            progress(where, done, number)

    return PictureSet(where, len(pictures), batches, pictures.fingerprint())


def sample_set(where: str, pipeline: Pipeline, count: int, progress: Progress) -> PictureSet:
    """Pictures drawn in turn over the classes, with seeds 0, 1, ... of each."""
    classes = max(1, len(pipeline.config.class_names))

    def batches(number: int) -> Iterator[Tensor]:
        places, done = torch.arange(number), 0
        seeds = (places // classes).tolist()
        for part in pipeline.sample_batches(places % classes, seeds, batch=256):
            yield to_uint8(part.images)
            done += len(part.images)
            progress(where, done, number)

    return PictureSet(where, count, batches)


def compare_sets(
    reference: PictureSet,
    others: Sequence[PictureSet],
    extractor: Extractor,
    count: int = 10_000,
    paired: bool = False,
) -> dict[str, Any]:
    """Every distance of each set to the reference, all over one number of pictures.

    Arguments:
        count: pictures of each set, at most as many as the smallest has: figures at different
            numbers cannot be compared.
        paired: also MSE, PSNR, SSIM and MS-SSIM, picture by picture in the order of their names;
            for reconstructions.
    """
    number = min(count, *(pictures.count for pictures in (reference, *others)))
    real = seen_by(extractor, reference, number)
    rows: dict[str, Any] = {}
    for other in others:
        rows[other.name] = distances_between(real, seen_by(extractor, other, number))
        if paired:
            rows[other.name]["pairs"] = paired_figures(reference, other, number)
    return {
        "against": reference.name,
        "extractor": extractor.name,
        "sha256": extractor.digest,
        "num_pictures": number,
        "sets": rows,
    }


def seen_by(extractor: Extractor, pictures: PictureSet, count: int) -> Seen:
    """What a network sees in a set, from the cache where it can be."""
    if not pictures.fingerprint:
        return look(extractor, pictures.batches(count))
    what = f"{pictures.fingerprint} {count}"
    return look_once(extractor, what, lambda: pictures.batches(count))


def paired_figures(reference: PictureSet, other: PictureSet, count: int) -> dict[str, Any]:
    """Distortion of one set against another of as many pictures."""
    if reference.count != other.count:
        raise ValueError(
            f"Pairs need two sets of as many pictures, got {reference.count} in {reference.name} "
            f"and {other.count} in {other.name}."
        )
    pairs = zip(reference.batches(count), other.batches(count), strict=True)
    return measure_pairs((to_float(a), to_float(b)) for a, b in pairs)


def figures_of_runs(folders: Sequence[RunFolder]) -> dict[str, dict[str, Any]]:
    """The figures that `evaluate` wrote of each run, flat, by the run's path."""
    return {str(folder.path): flat_figures(measured(folder)) for folder in folders}


def measured(folder: RunFolder) -> dict[str, Any]:
    """metrics.json of a run that has one."""
    folder.read()
    metrics = folder.read_metrics()
    if not metrics:
        raise ValueError(
            f"{folder.path} was not measured yet; run `vqvae2 evaluate {folder.path}` first."
        )
    return metrics


def flat_figures(values: Any, name: str = "") -> dict[str, float]:
    """All numbers of nested objects and lists under dotted names; provenance is left out."""
    if isinstance(values, bool | str) or values is None:
        return {}
    if isinstance(values, int | float):
        return {name: values}
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    found: dict[str, float] = {}
    for key, value in pairs:
        if key != "provenance":
            found |= flat_figures(value, f"{name}.{key}".strip("."))
    return found
