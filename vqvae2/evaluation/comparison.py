"""Runs and sets of images side by side.

A set of images is named by one word:

    FOLDER                      all images in and below it: data, another model's samples, ...
    RUN or RUN:samples          images drawn from a run, of the classes it learnt from
    RUN:reconstructions         its validation images after the way through the codes
    RUN:train, RUN:validation     the images themselves, as the run sees them
    DATA:train, DATA:validation   a split of a data set: folder, Parquet, shards, hub, synthetic

Legend: `B` images, `S` their side.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.autoencoder.pixels import Pixels
from vqvae2.data.codes import read_codes
from vqvae2.data.config import DataConfig
from vqvae2.data.images import (
    ImageDataset,
    Progress,
    image_files,
    load_folder,
    open_images,
    open_validation,
    quiet,
)
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import versions
from vqvae2.evaluation.image_sets import drawn, restored, seeds_within, shown
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.distortion import measure_pairs
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import Features, distances_between, look, look_once, require_enough
from vqvae2.metrics.results import Comparison, Measurement, RunMetrics
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder
from vqvae2.weights import code_fingerprint

KINDS = ("samples", "reconstructions", "validation", "train")
"""What can be asked of a run."""


@dataclass(frozen=True)
class ImageSet:
    """Images under a name, as often as asked.

    Arguments:
        name: as the user wrote it.
        count: how many there are.
        side: S.
        batches: the first so many, evenly spread, (B, 3, S, S) uint8.
        names: of the images, () for those that are drawn.
        kept: whether they are worth a place in the cache of features.
    """

    name: str
    count: int
    side: int
    batches: Callable[[int], Iterator[Tensor]]
    names: tuple[str, ...] = ()
    kept: bool = False


def parse_set(where: str) -> tuple[Path, str]:
    """The path and the kind, "" for none, that a word names."""
    path, colon, kind = where.rpartition(":")
    if not colon or kind not in KINDS or Path(where).exists():
        return Path(where), ""
    return Path(path), kind


def is_run(path: Path) -> bool:
    """Whether a path is a run folder."""
    return (path / "config.json").is_file()


def common_side(names: Sequence[str]) -> int:
    """The side that folders are brought to where none is given: that of a run among the sets."""
    sides = [RunFolder(path).read().data.size for path, _ in map(parse_set, names) if is_run(path)]
    return sides[0] if sides else 0


def open_set(
    where: str, size: int = 0, count: int = 10_000, device: str = "cpu", progress: Progress = quiet
) -> ImageSet:
    """The set of images that a word names; ValueError says what it is not.

    Arguments:
        size: S of a folder's or data set's images; 0 takes a folder's as they are, of one size
            and square.
        count: images to draw, where they are drawn.
    """
    path, kind = parse_set(where)
    if is_run(path):
        return set_of_run(where, RunFolder(path), kind or "samples", count, device, progress)
    if kind in ("train", "validation"):
        if not size and not path.is_dir():
            raise ValueError(f"{where} needs --size, the side that its images are brought to.")
        config = DataConfig(source=str(path), size=size or natural_side(path))
        data = open_images(config, progress=progress)
        return split_set(where, getattr(data, kind), progress)
    if kind:
        RunFolder(path).read()  # says that it is no run
    dataset = load_folder(path, size or natural_side(path), progress=progress)
    return split_set(where, dataset, progress)


def set_of_run(
    where: str, folder: RunFolder, kind: str, count: int, device: str, progress: Progress
) -> ImageSet:
    """Images that a run learnt from, was measured on, gives back or draws."""
    run = folder.read()
    if kind == "train":
        return split_set(where, open_images(run.data, progress=progress).train, progress)
    if kind == "validation":
        return split_set(where, open_validation(run.data, progress=progress), progress)
    pipeline = Pipeline.open(folder.path).to(device)
    if kind == "samples":
        known = training_labels(folder, pipeline)

        def samples(number: int) -> Iterator[Tensor]:
            labels = known[torch.arange(number) * len(known) // number]
            return drawn(pipeline, labels, seeds_within(labels), where, progress)

        return ImageSet(where, count, run.data.size, samples)
    originals = split_set(where, open_validation(run.data, progress=progress), progress)
    return ImageSet(
        where,
        originals.count,
        originals.side,
        lambda number: restored(pipeline, originals.batches(number)),
        originals.names,
    )


def training_labels(folder: RunFolder, pipeline: Pipeline) -> Tensor:
    """The labels (N,) that a run's priors learnt from."""
    if isinstance(pipeline.autoencoder, Pixels):
        return open_images(folder.read().data).train.labels
    return read_codes(folder.codes, "train", code_fingerprint(pipeline.autoencoder), 1).labels


def split_set(where: str, dataset: ImageDataset, progress: Progress) -> ImageSet:
    """Images of a split."""
    return ImageSet(
        where,
        len(dataset),
        dataset.size,
        lambda number: shown(dataset, evenly_spaced(len(dataset), number), where, progress),
        tuple(dataset.names),
        kept=True,
    )


def natural_side(folder: Path) -> int:
    """The side of a folder's images, if they are square and of one size."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    for path in image_files(folder):
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        # Pillow's readers meet broken files with a dozen kinds of error.
        except Exception:
            continue  # named and counted when it is decoded
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        found = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(
            f"The images in {folder} are not squares of one size "
            f"({found or 'none can be read'}{', ...' if len(sizes) > 3 else ''}); give --size to "
            "crop and resize them."
        )
    return next(iter(sizes))[0]


def compare_sets(
    reference: ImageSet,
    others: Sequence[ImageSet],
    extractor: Extractor,
    count: int = 10_000,
    paired: bool = False,
) -> Comparison:
    """Every distance of each set to the reference, all over one number of images.

    Raises ValueError, before anything is looked at, for sets of two sizes, too few images and
    pairs that are none.

    Arguments:
        count: images of each set, at most as many as the smallest has: figures at different
            numbers cannot be compared.
        paired: also MSE, PSNR, SSIM and MS-SSIM, image by image; for reconstructions.
    """
    number = min(count, *(dataset.count for dataset in (reference, *others)))
    require_enough(number)
    for other in others:
        if other.side != reference.side:
            raise ValueError(
                f"Images of two sizes cannot be compared: {reference.name} has {reference.side} "
                f"pixels a side, {other.name} {other.side}; give --size to bring folders to one."
            )
        if paired:
            require_pairs(reference, other)
    real = seen_by(extractor, reference, number)
    distances: dict[str, Measurement] = {}
    errors: dict[str, Measurement] = {}
    for other in others:
        distances[other.name] = distances_between(real, seen_by(extractor, other, number))
        if paired:
            pairs = zip(reference.batches(number), other.batches(number), strict=True)
            errors[other.name] = measure_pairs((to_float(a), to_float(b)) for a, b in pairs)
    return Comparison(
        against=reference.name,
        extractor=extractor.name,
        digest=extractor.digest,
        num_images=number,
        side=reference.side,
        sets=distances,
        pairs=errors,
        versions=versions(),
    )


def seen_by(extractor: Extractor, dataset: ImageSet, count: int) -> Features:
    """What a network sees in a set, from the cache where it can be."""
    if not dataset.kept:
        return look(extractor, dataset.batches(count))
    return look_once(extractor, lambda: dataset.batches(count))


def require_pairs(reference: ImageSet, other: ImageSet) -> None:
    """Raises ValueError for sets whose images do not belong together one by one."""
    first, second = ([Path(n).with_suffix("") for n in s.names] for s in (reference, other))
    if len(first) != len(second) or not first:
        raise ValueError(
            f"Pairs need two sets of as many images, got {len(first)} in {reference.name} and "
            f"{len(second)} in {other.name}."
        )
    for one, two in zip(first, second, strict=True):
        if one != two:
            raise ValueError(
                f"Pairs need images of the same names, got {one} in {reference.name} beside "
                f"{two} in {other.name}."
            )


def metrics_of_runs(folders: Sequence[RunFolder]) -> dict[str, dict[str, float]]:
    """Every scalar that `evaluate` wrote, by its dotted name, by the run's path."""
    return {str(folder.path): measured(folder).flat() for folder in folders}


def measured(folder: RunFolder) -> RunMetrics:
    """The metrics of a run; ValueError where there are none."""
    folder.read()
    metrics = folder.read_metrics()
    if not metrics:
        raise ValueError(
            f"{folder.path} was not measured yet; run `vqvae2 evaluate {folder.path}` first."
        )
    return metrics
