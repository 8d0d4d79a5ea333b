"""Samples as PNG files, one file per class and seed, and image grids of them.

Every PNG stores the settings that made it. With a judge, more samples are drawn than written:
those with the highest probability of their class are selected.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.configuration import Json, to_json
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.export.progress import ExportProgress, grid_path
from vqvae2.export.selection import Sample, Selection, unscored_samples
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import read_png, save_png
from vqvae2.metrics.extractors import Extractor
from vqvae2.pipeline import Pipeline
from vqvae2.pipeline.samples import class_name, file_name
from vqvae2.sampling.config import SamplingConfig

MAX_GRID_ROWS, GRID_COLUMNS = 20, 8


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """Which samples are drawn and written.

    Arguments:
        labels: Classes, each once.
        num_images: Number of images of each class that are written.
        seed: Seed of the first image of each class; the next images have the next seeds.
        keep: Fraction of the drawn samples that is written, in (0, 1]; below 1 a judge selects.
        sampling: How each level is drawn, coarsest first.
        batch_size: Number of images drawn at a time; it bounds the memory and changes no image.
        source: Name of the model; every file stores it.
    """

    labels: tuple[int, ...]
    num_images: int = 8
    seed: int = 0
    keep: float = 1.0
    sampling: tuple[SamplingConfig, ...]
    batch_size: int = 64
    source: str = ""

    def __post_init__(self) -> None:
        """Validates the request."""
        if not 0 < self.keep <= 1:
            raise ValueError(
                f"The fraction of samples to keep must be in (0, 1], got {self.keep:g}."
            )

    @property
    def num_drawn(self) -> int:
        """Number of samples of each class that are drawn."""
        return math.ceil(self.num_images / self.keep - 1e-9)

    @property
    def num_in_grid(self) -> int:
        """Number of images of each class in the grid: complete rows where there are many."""
        rows = max(1, MAX_GRID_ROWS // len(self.labels))
        return min(self.num_images, rows * GRID_COLUMNS)

    @property
    def grid_total(self) -> int:
        """Number of images in the grid."""
        return self.num_in_grid * min(len(self.labels), MAX_GRID_ROWS)

    @property
    def total(self) -> int:
        """Number of samples of all classes that are drawn."""
        return self.num_drawn * len(self.labels)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Labels and seeds of all samples, (N,) each."""
        seeds = torch.arange(self.seed, self.seed + self.num_drawn)
        labels = torch.tensor(self.labels).repeat_interleave(self.num_drawn)
        return labels, seeds.repeat(len(self.labels))


def export_samples(
    pipeline: Pipeline,
    request: SampleRequest,
    folder: Path,
    judge: Extractor | None = None,
    world: World = SINGLE_PROCESS,
) -> Iterator[ExportProgress]:
    """Draws samples, writes them into `folder` and an image grid of them beside it.

    Arguments:
        pipeline: A model with priors.
        request: Which samples.
        folder: Where the files CLASS-SEED.png are written.
        judge: A classifier of the model's classes; it selects where `request.keep` is below 1.
        world: The processes that share the work; the main process writes the grid.
    """
    selection = None
    if request.keep < 1:
        if judge is None:
            raise ValueError(
                "To keep a fraction of the samples, a judge must select them; got none."
            )
        selection = Selection(judge, pipeline.num_classes, request.num_images)
    labels, seeds = request.pairs()
    pairs = list(zip(labels.tolist(), seeds.tolist(), strict=True))
    local = world.shard_nonempty(torch.arange(len(labels)))
    writer = SampleWriter(pipeline.config.class_names, request, folder, pipeline.decoder_in_use)
    done, total = 0, len(local)
    for batch in pipeline.sample_batches(
        labels[local], seeds[local].tolist(), sampling=request.sampling, batch=request.batch_size
    ):
        done += len(batch.seeds)
        if selection is None:
            yield ExportProgress(done, total, writer.write(unscored_samples(batch)))
        else:
            selection.add(batch)
            yield ExportProgress(done, total)
    if selection is not None:
        pairs = selection.pairs(world)
        yield ExportProgress(done, total, writer.write(selection.local(pairs), selection.judge))
    world.barrier()
    if world.is_main:
        yield ExportProgress(done, total, (writer.write_grid(pairs),))


@dataclass(frozen=True)
class SampleWriter:
    """Writes samples and their grid.

    Arguments:
        class_names: Those of the model, in the order of the labels.
        request: How the samples are drawn.
        folder: Where the files are written.
        decoder: Of the images: plain or sharp.
    """

    class_names: Sequence[str]
    request: SampleRequest
    folder: Path
    decoder: str

    def path(self, label: int, seed: int) -> Path:
        """The file of a sample."""
        return self.folder / f"{file_name(self.class_names, label)}-{seed:05d}.png"

    def write(self, samples: Iterable[Sample], judge: Extractor | None = None) -> tuple[Path, ...]:
        """Writes samples with their settings, and the score of a judge, and returns the files."""
        paths = []
        for sample in samples:
            settings: dict[str, Json] = {
                "class": class_name(self.class_names, sample.label),
                "seed": sample.seed,
                "sampling": to_json(self.request.sampling),
                "run": self.request.source,
                "decoder": self.decoder,
            }
            if judge is not None:
                settings |= {"judge": judge.name, "score": sample.score}
            paths.append(self.path(sample.label, sample.seed))
            save_png(paths[-1], to_pil(sample.image), settings)
        return tuple(paths)

    def write_grid(self, pairs: Sequence[tuple[int, int]]) -> Path:
        """Writes a grid of the first images of some classes, read from their files.

        Arguments:
            pairs: (label, seed) of each image that was written.
        """
        rows: list[Tensor] = []
        names: list[str] = []
        for row_label in self.request.labels[:MAX_GRID_ROWS]:
            seeds = [seed for label, seed in pairs if label == row_label]
            files = [self.path(row_label, seed) for seed in seeds[: self.request.num_in_grid]]
            of_class = torch.stack(list(map(read_png, files))).split(GRID_COLUMNS)
            rows += of_class
            names += [class_name(self.class_names, row_label), *[""] * (len(of_class) - 1)]
        path = grid_path(self.folder)
        save_png(path, image_grid(rows, names))
        return path


def export_class_grid(
    pipeline: Pipeline, path: Path, images_per_class: int
) -> Iterator[ExportProgress]:
    """Draws samples of some classes as one image: one row per class, with the seeds 0, 1, ...

    Arguments:
        pipeline: A model with priors.
        path: The PNG file.
        images_per_class: Number of columns.
    """
    names = pipeline.config.class_names
    classes = evenly_spaced(len(names), MAX_GRID_ROWS).tolist() or [0]
    labels = [label for label in classes for _ in range(images_per_class)]
    seeds = list(range(images_per_class)) * len(classes)
    images: list[Tensor] = []
    for batch in pipeline.sample_batches(labels, seeds):
        images += batch.images.cpu()
        yield ExportProgress(len(images), len(labels))
    rows = torch.stack(images).split(images_per_class)
    save_png(path, image_grid(rows, [class_name(names, label) for label in classes]))
    yield ExportProgress(len(images), len(labels), (path,))
