"""Sets of images, of runs and of other models, against a reference set.

A set of images is named by one word:

    FOLDER                        all images in and below it: data, samples of another model, ...
    RUN or RUN:samples            samples of a run, of the classes of its training images
    RUN:reconstructions           reconstructions of its validation images
    RUN:train, RUN:validation     its images
    DATA:train, DATA:validation   a split of a data set: folder, Parquet, shards, hub, synthetic

Legend: `B N` images, `S` their side.
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
    load_images,
    open_images,
    open_validation,
    quiet,
)
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation, versions
from vqvae2.evaluation.image_sets import (
    dataset_images,
    reconstructed_images,
    sample_seeds,
    sampled_images,
)
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.distortion import measure_pairs
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import (
    Features,
    cached_features,
    distances_between,
    extract_features,
    require_enough,
)
from vqvae2.metrics.results import Comparison, Measurement
from vqvae2.pipeline import DecoderName
from vqvae2.runs.folder import RunFolder
from vqvae2.weights import code_fingerprint

KINDS = ("samples", "reconstructions", "validation", "train")
"""Sets of images of a run."""


@dataclass(frozen=True)
class ImageSet:
    """A named set of images that can be read any number of times.

    Arguments:
        name: as the user wrote it.
        count: number of images.
        side: S.
        batches: returns so many of them, evenly spaced, in batches (B, 3, S, S) uint8.
        names: of the images; () for samples.
        is_data: whether they are images of a data set, whose features are worth caching.
        evaluation: of the run that made them, if one did.
    """

    name: str
    count: int
    side: int
    batches: Callable[[int], Iterator[Tensor]]
    names: tuple[str, ...] = ()
    is_data: bool = False
    evaluation: Evaluation | None = None


def parse_set(name: str) -> tuple[Path, str]:
    """The path and the kind ("" for none) in the name of a set."""
    path, colon, kind = name.rpartition(":")
    if not colon or kind not in KINDS or Path(name).exists():
        return Path(name), ""
    return Path(path), kind


def is_run(path: Path) -> bool:
    """Whether a path is a run folder."""
    return (path / "config.json").is_file()


def common_side(names: Sequence[str]) -> int:
    """The side of the images of the first run among the sets; 0 without a run."""
    sides = [RunFolder(path).read().data.size for path, _ in map(parse_set, names) if is_run(path)]
    return sides[0] if sides else 0


def open_set(
    name: str, size: int = 0, count: int = 10_000, device: str = "cpu", progress: Progress = quiet
) -> ImageSet:
    """Opens a set of images by its name.

    Arguments:
        name: of the set.
        size: S of the images of a folder or data set; 0 requires square images of one size.
        count: samples to draw, where the set is samples.
        device: where a run's models are put.
        progress: called while images are decoded or sampled.
    """
    path, kind = parse_set(name)
    is_split = kind in ("train", "validation")
    if is_run(path) and not is_split:
        evaluation = Evaluation.open(RunFolder(path), device, progress=progress)
        if kind == "reconstructions":
            return dataset_set(name, evaluation.validation, progress, evaluation)
        return samples_of(name, evaluation, count)
    if kind and not is_split:
        RunFolder(path).read()  # raises: it is not a run
    if is_split and not (size or path.is_dir()):
        raise ValueError(f"{name} needs --size, the side of its images in pixels.")
    if is_run(path):
        config = RunFolder(path).read().data
    elif is_split:
        config = DataConfig(source=str(path), size=size or natural_side(path))
    else:
        folder = load_images(path, size or natural_side(path), progress=progress)
        return dataset_set(name, folder, progress)
    if kind == "train":
        return dataset_set(name, open_images(config, progress=progress).train, progress)
    return dataset_set(name, open_validation(config, progress=progress), progress)


def choose_decoder(sets: Sequence[ImageSet], decoder: DecoderName) -> None:
    """Sets what decodes the samples and reconstructions of runs; "" is the sharp one if any."""
    for one in sets:
        if one.evaluation is not None:
            pipeline = one.evaluation.pipeline
            pipeline.decoder = pipeline.require_decoder(decoder)


def samples_of(name: str, evaluation: Evaluation, count: int) -> ImageSet:
    """Samples with the classes of the training images, in their proportions."""
    labels_of_train = training_labels(evaluation)

    def samples(number: int) -> Iterator[Tensor]:
        # More samples than training images repeat labels.
        labels = labels_of_train[torch.arange(number) * len(labels_of_train) // number]
        seeds = sample_seeds(labels, evaluation.pipeline.num_classes)
        return sampled_images(evaluation, labels, seeds, title=name)

    side = evaluation.config.data.size
    return ImageSet(name, count, side, samples, evaluation=evaluation)


def training_labels(evaluation: Evaluation) -> Tensor:
    """The labels (N,) of a run's training images."""
    autoencoder = evaluation.pipeline.autoencoder
    if isinstance(autoencoder, Pixels):
        return evaluation.splits.train.labels
    return read_codes(evaluation.folder.codes, "train", code_fingerprint(autoencoder), 1).labels


def dataset_set(
    name: str, dataset: ImageDataset, progress: Progress, evaluation: Evaluation | None = None
) -> ImageSet:
    """The images of a data set, or their reconstructions by the run of an evaluation."""

    def images(number: int) -> Iterator[Tensor]:
        indices = evenly_spaced(len(dataset), number)
        if evaluation is None:
            return dataset_images(dataset, indices, name, progress)
        return reconstructed_images(evaluation, dataset, indices, name)

    names, is_data = tuple(dataset.names), evaluation is None
    return ImageSet(name, len(dataset), dataset.size, images, names, is_data, evaluation)


def natural_side(folder: Path) -> int:
    """The side of a folder's images; ValueError unless they are square and of one size."""
    from PIL import Image

    sizes: set[tuple[int, int]] = set()
    for path in image_files(folder):
        try:
            with Image.open(path) as image:
                sizes.add(image.size)
        # Pillow raises many kinds of error for damaged files.
        except Exception:
            continue  # counted and named when the folder is decoded
    if len(sizes) != 1 or len(set(*sizes)) != 1:
        some = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise ValueError(
            f"The images in {folder} are not squares of one size "
            f"({some or 'none can be read'}{', ...' if len(sizes) > 3 else ''}); give --size to "
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
    """Distances of each set to the reference, all over the same number of images.

    Arguments:
        reference: usually real images.
        others: compared with the reference, one by one.
        extractor: gives the features.
        count: images of each set, at most as many as the smallest has: distances at different
            numbers cannot be compared.
        paired: also MSE, PSNR, SSIM and MS-SSIM of images of the same name; for reconstructions.

    Raises:
        ValueError: different sizes, too few images, or sets that are not pairs; before any
            features are extracted.
    """
    number = min(count, *(dataset.count for dataset in (reference, *others)))
    require_enough(number)
    for one in (reference, *others):
        if one.evaluation is not None:
            one.evaluation.require_independent(extractor)
        require_one_size(reference, one)
    for other in others if paired else ():
        require_pairs(reference, other)
    real = set_features(extractor, reference, number)
    distances: dict[str, Measurement] = {}
    errors: dict[str, Measurement] = {}
    for other in others:
        distances[other.name] = distances_between(real, set_features(extractor, other, number))
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


def set_features(extractor: Extractor, images: ImageSet, count: int) -> Features:
    """The features of so many images of a set, from the cache for images of data sets."""
    if not images.is_data:
        return extract_features(extractor, images.batches(count))
    return cached_features(extractor, lambda: images.batches(count))


def require_one_size(reference: ImageSet, other: ImageSet) -> None:
    """Raises ValueError unless the images of two sets have the same side."""
    if other.side != reference.side:
        raise ValueError(
            f"Images of two sizes cannot be compared: {reference.name} has {reference.side} "
            f"pixels a side, {other.name} {other.side}; give --size to resize folders."
        )


def require_pairs(reference: ImageSet, other: ImageSet) -> None:
    """Raises ValueError unless both sets have images of the same names in the same order."""
    first, second = ([Path(n).with_suffix("") for n in s.names] for s in (reference, other))
    if len(first) != len(second) or not first:
        raise ValueError(
            f"Pairs need two sets of as many images, got {len(first)} in {reference.name} and "
            f"{len(second)} in {other.name}."
        )
    for one, two in zip(first, second, strict=True):
        if one != two:
            raise ValueError(
                f"Pairs need images of the same names, got {one} in {reference.name} and "
                f"{two} in {other.name}."
            )


def metrics_of_runs(folders: Sequence[RunFolder]) -> dict[str, dict[str, float]]:
    """Every scalar that `evaluate` wrote, by its dotted name, by the run's path."""
    columns = {}
    for folder in folders:
        folder.read()  # raises: it is not a run
        columns[str(folder.path)] = folder.read_metrics().flat()
        if not columns[str(folder.path)]:
            raise ValueError(
                f"{folder.path} was not measured yet; run `vqvae2 evaluate {folder.path}` first."
            )
    return columns
