"""Completions and variations of images as PNG files, and a grid of some of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.configuration import Json, to_json
from vqvae2.data.images import ImageDataset
from vqvae2.export.progress import ExportProgress, grid_path, png_names
from vqvae2.imaging.convert import to_float, to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.messages import shortened
from vqvae2.pipeline import LOWER_HALF, Pipeline
from vqvae2.sampling.config import SamplingConfig
from vqvae2.sampling.inpaint import UNKNOWN, Box, erase

MAX_GRID_ROWS = 12
EVERYTHING: Box = (0, 0, 1, 1)


@dataclass(frozen=True, kw_only=True)
class InpaintingRequest:
    """Which part of the images is drawn again, and how often.

    Arguments:
        box: Left, top, right, bottom of the part, as fractions of the sides.
        keep_levels: Number of coarsest levels whose codes are preserved everywhere.
        num_versions: Number of versions of each image.
        seed: Seed of the first version; the next versions have the next seeds.
        sampling: How each level is drawn, coarsest first.
        batch_size: Number of images drawn at a time; it bounds the memory and changes no image.
        source: Name of the model; every file stores it.
    """

    box: Box = LOWER_HALF
    keep_levels: int = 0
    num_versions: int = 4
    seed: int = 0
    sampling: tuple[SamplingConfig, ...]
    batch_size: int = 64
    source: str = ""

    @property
    def seeds(self) -> list[int]:
        """The seed of each version."""
        return list(range(self.seed, self.seed + self.num_versions))


def export_inpaintings(
    pipeline: Pipeline,
    dataset: ImageDataset,
    labels: Tensor,
    request: InpaintingRequest,
    folder: Path,
) -> Iterator[ExportProgress]:
    """Draws a part of each image again, writes the results into `folder` and a grid beside it.

    Arguments:
        pipeline: A model with priors.
        dataset: The images.
        labels: Their classes, (N,) int64; see `labels_of_folders`.
        request: Which part, how often.
        folder: Where the files NAME-SEED.png are written, with the sub-folders of the images.
    """
    rows: list[Tensor] = []
    num_versions, done, names = request.num_versions, 0, png_names(dataset.names)
    for indices in torch.split(
        torch.arange(len(dataset)), max(1, request.batch_size // num_versions)
    ):
        images, paths = to_float(dataset.batch(indices)), list[Path]()
        samples = pipeline.inpaint(
            images.repeat_interleave(num_versions, dim=0),
            labels[indices].repeat_interleave(num_versions),
            request.seeds * len(images),
            box=request.box,
            keep_levels=request.keep_levels,
            sampling=request.sampling,
            batch=request.batch_size,
        )
        versions = samples.images.cpu().split(num_versions)
        for index, image, row in zip(indices.tolist(), images, versions, strict=True):
            file, name = folder / names[index], dataset.names[index]
            paths += write_versions(file, name, row, request, pipeline.decoder_in_use)
            if len(rows) < MAX_GRID_ROWS:
                rows.append(torch.cat([image_and_preserved_part(pipeline, image, request), row]))
        done += len(images)
        yield ExportProgress(done, len(dataset), tuple(paths))
    titles = ["image", "preserved", *(f"seed {seed}" for seed in request.seeds)]
    grid = grid_path(folder)
    save_png(grid, image_grid(rows, titles=titles))
    yield ExportProgress(done, len(dataset), (grid,))


def write_versions(
    file: Path, name: str, versions: Tensor, request: InpaintingRequest, decoder: str
) -> Iterator[Path]:
    """Writes the versions of one image as FILE-SEED.png with their settings; returns the files."""
    settings: dict[str, Json] = {
        "run": request.source,
        "source": name,
        "box": list(request.box),
        "keep_levels": request.keep_levels,
        "sampling": to_json(request.sampling),
        "decoder": decoder,
    }
    for seed, version in zip(request.seeds, versions, strict=True):
        path = file.with_name(f"{file.name}-{seed:05d}.png")
        save_png(path, to_pil(version), {**settings, "seed": seed})
        yield path


def labels_of_folders(pipeline: Pipeline, dataset: ImageDataset, name: str = "") -> Tensor:
    """The class of each image, (N,) int64, by the name of the sub-folder that contains it.

    With a name, all images have that class; for a model without classes all labels are 0.
    """
    class_names = pipeline.config.class_names
    if name or not class_names:
        return pipeline.labels([name or 0] * len(dataset))
    folders = [Path(dataset.names[index]).parent.name for index in range(len(dataset))]
    for index, folder in enumerate(folders):
        if folder not in class_names:
            raise ValueError(
                f"The class of {dataset.names[index]} is unknown: it is in no sub-folder with the "
                f"name of a class ({shortened(class_names, 8)}); name the class of all images "
                "with --class NAME."
            )
    return pipeline.labels(folders)


def image_and_preserved_part(
    pipeline: Pipeline, image: Tensor, request: InpaintingRequest
) -> Tensor:
    """An image (C, S, S) and the part of it that inpainting preserves, (2, C, S, S).

    Complete cells of the code grid are drawn again: they are grey, or show what the preserved
    levels alone decode to.
    """
    codes = pipeline.encode(image[None])
    height, width = codes[request.keep_levels].shape[1:3]
    cells = erase(torch.zeros(1, height, width), request.box) == UNKNOWN
    covered = F.interpolate(cells[None].float(), size=image.shape[1:])[0] > 0
    background = torch.full_like(image, 0.5)
    if request.keep_levels:
        background = pipeline.decode(codes, range(request.keep_levels))[0].cpu()
    return torch.stack([image, torch.where(covered, background, image)])
