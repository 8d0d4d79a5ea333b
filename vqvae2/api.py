"""Training, measuring and encoding folders from Python, as the command line does.

    from vqvae2 import fit

    pipeline = fit("photos", hours=1, run="runs/photos")
    pipeline.sample(num_images=16).save("samples")

A call that was interrupted continues when it is repeated.

Legend: `N` images, `C` channels, `H W` sides.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

from vqvae2.cli.train import Options, resolve, train
from vqvae2.data.images import load_images
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples
from vqvae2.evaluation.validation import evaluate as evaluate_validation
from vqvae2.export.codes import export_codes
from vqvae2.files import write_bytes
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.inputs import Images, as_batch
from vqvae2.imaging.png import png
from vqvae2.imaging.prepare import upright
from vqvae2.metrics.results import RunMetrics
from vqvae2.pipeline import Pipeline
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training.session import Event

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

NUM_CHANNELS = 3
DIGEST = "digest.txt"
"""Beside images from memory: whether a later call has the same ones."""


def fit(
    images: "str | Path | Images | Dataset",
    config: RunConfig | str = "",
    *,
    hours: float = 0.0,
    run: str | Path = "",
    labels: Sequence[SupportsIndex | str] | None = None,
    callback: Callable[[Event], None] | None = None,
) -> Pipeline:
    """Trains an autoencoder and priors, or continues to; prints progress, metrics and advice.

    Arguments:
        images: a folder, or another source of `vqvae2 train --data`; images in memory, in any form
            of `vqvae2.imaging.inputs`; or a data set of the package `datasets` with a column of
            images. Images in memory are written into RUN/images, so that the run can be continued
            and measured.
        config: a complete configuration, or the name of a preset.
        hours: in place of a config, plan a run that takes this long on this machine.
        run: the run folder; runs/NAME-PRESET by default, needed for images in memory.
        labels: of images in memory: one class per image, numbers or names.
        callback: called with every event of training; where a model was validated,
            `event.metrics` are its metrics and `event.model` is its averaged weights.

    Returns:
        The trained models, on the CPU.

    Raises:
        ValueError: the images, the config and the run do not fit together.
        Stopped: by Ctrl-C; everything is saved.
    """
    source = source_of(images, labels, run)
    preset = config if isinstance(config, str) else ""
    options = Options(preset=preset, data=source, run=str(run), hours=hours)
    if isinstance(config, RunConfig):
        if hours:
            raise ValueError("hours plans its own config; leave out one of them.")
        folder = RunFolder(Path(run or f"runs/{Path(source).stem}-{config.preset}"))
        resolved = replace(config, data=replace(config.data, source=source))
    else:
        folder, resolved = resolve(options, [])
    train(folder, resolved, options, callback)
    return Pipeline.open(folder.path)


def evaluate(
    run: str | Path, *, num_images: int = 2000, num_samples: int = 0, extractor: str = ""
) -> RunMetrics:
    """Measures a run; the results are also written to its metrics.json.

    Arguments:
        run: the run folder.
        num_images: validation images whose reconstructions and likelihoods are measured.
        num_samples: samples that are compared with training images; 0 for none.
        extractor: of their features, as `vqvae2 evaluate --extractor` names it; "" is the
            Inception network of published results, which is downloaded once.
    """
    evaluation = Evaluation.open(RunFolder(Path(run)))
    evaluate_validation(evaluation, num_images)
    if num_samples:
        network = extractor_for(evaluation.folder, extractor)
        evaluate_samples(evaluation, network, SampleEvaluationConfig(num_images=num_samples))
    return evaluation.read()


def encode(
    run: str | Path,
    images: str | Path,
    out: str | Path = "codes.parquet",
    *,
    size: int = 0,
    batch: int = 64,
) -> "Dataset":
    """The codes of a folder of images as a data set of the package `datasets`.

    Its columns are `name`, `label`, `class` and, per level, the codes in raster order: `level_0`,
    `level_1`, ..., coarsest first. `vqvae2 decode` turns the file into images.

    Arguments:
        run: what `Pipeline.open` takes.
        images: a folder, whose sub-folders are classes, or one image.
        out: the Parquet file that the data set reads.
        size: side that images are cropped and resized to; 0 is the side of the training.
        batch: images that are encoded at a time.
    """
    from datasets import Dataset

    pipeline = Pipeline.open(run)
    dataset = load_images(str(images), size or pipeline.config.image_size)
    for _ in export_codes(pipeline, dataset, Path(out), batch):
        pass
    return Dataset.from_parquet(str(out))


def source_of(
    images: "str | Path | Images | Dataset",
    labels: Sequence[SupportsIndex | str] | None,
    run: str | Path,
) -> str:
    """The name of a source that holds the images; those in memory are written into the run."""
    if isinstance(images, str | Path):
        if labels is not None:
            raise ValueError(
                "labels are for images in memory; the sub-folders of a folder are its classes."
            )
        return str(Path(images)) if isinstance(images, Path) else images
    if not run:
        raise ValueError("Images in memory need a run folder: fit(images, run='runs/mine').")
    folder = Path(run) / "images"
    if hasattr(images, "to_parquet"):
        if labels is not None:
            raise ValueError("The labels of a data set are one of its columns; leave them out.")
        folder.mkdir(parents=True, exist_ok=True)
        images.to_parquet(str(folder / "train.parquet"))
        return str(folder)
    files = [png(image) for image in pillow_images(images)]
    write_images(folder, files, class_folders(labels, len(files)))
    return str(folder)


def pillow_images(images: Images) -> "Iterator[Image]":
    """Images in any form, one by one, each at its own size."""
    from PIL import Image

    if isinstance(images, list | tuple):
        for image in images:
            yield from pillow_images(image)
    elif isinstance(images, Image.Image):
        yield upright(images)
    else:
        yield from map(to_pil, as_batch(images, NUM_CHANNELS, size=0))


def class_folders(labels: Sequence[SupportsIndex | str] | None, count: int) -> list[str]:
    """The folder of each image: of its class, in the order of the numbers, or "." without."""
    if labels is None:
        return ["."] * count
    if len(labels) != count:
        raise ValueError(f"Expected one label per image, got {len(labels)} for {count} images.")
    names = [label if isinstance(label, str) else f"{int(index(label)):06d}" for label in labels]
    unusable = next((name for name in names if "/" in name or name[:1] in (".", "")), None)
    if unusable is not None:
        raise ValueError(
            f"Names of classes become names of folders, got {unusable!r}; use one without a slash "
            "that does not begin with a dot."
        )
    return names


def write_images(folder: Path, files: Sequence[bytes], classes: Sequence[str]) -> None:
    """Writes PNG files into a folder, unless it has them.

    Raises:
        ValueError: it has other ones.
    """
    digest = hashlib.blake2b(digest_size=16)
    for file, name in zip(files, classes, strict=True):
        digest.update(f"{name} {len(file)}\n".encode() + file)
    if (folder / DIGEST).is_file():
        if (folder / DIGEST).read_text() != digest.hexdigest():
            raise ValueError(f"{folder} holds the other images of a run; use another run folder.")
        return
    for number, (file, name) in enumerate(zip(files, classes, strict=True)):
        write_bytes(folder / name / f"{number:06d}.png", file)
    write_bytes(folder / DIGEST, digest.hexdigest().encode())
