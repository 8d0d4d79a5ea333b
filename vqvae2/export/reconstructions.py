"""Reconstructions of images as PNG files, and a grid that compares some of them level by level."""

from collections.abc import Iterator
from pathlib import Path

import torch

from vqvae2.configuration import Json
from vqvae2.data.images import ImageDataset
from vqvae2.export.progress import ExportProgress, grid_path, png_names
from vqvae2.imaging.convert import to_float, to_pil
from vqvae2.imaging.png import save_png
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES, preview_levels
from vqvae2.metrics.distortion import mean_error
from vqvae2.pipeline import Pipeline


def export_reconstructions(
    pipeline: Pipeline, dataset: ImageDataset, folder: Path, batch_size: int = 64, source: str = ""
) -> Iterator[ExportProgress]:
    """Encodes and decodes images, writes the results into `folder` and a grid beside it.

    Arguments:
        pipeline: A model; it needs no priors.
        dataset: The images.
        folder: Where the files NAME.png are written, with the sub-folders of the images.
        batch_size: Number of images at a time.
        source: Name of the model; every file stores it.
    """
    done, error, names = 0, 0.0, png_names(dataset.names)
    for indices in torch.split(torch.arange(len(dataset)), batch_size):
        images = to_float(dataset.batch(indices).to(pipeline.device))
        reconstructions = pipeline.reconstruct(images)
        error += float(mean_error(images, reconstructions)) * len(images)
        paths = []
        for index, image in zip(indices.tolist(), reconstructions, strict=True):
            paths.append(folder / f"{names[index]}.png")
            settings: dict[str, Json] = {"run": source, "source": dataset.names[index]}
            settings["decoder"] = pipeline.decoder_in_use
            save_png(paths[-1], to_pil(image), settings)
        if done == 0:
            paths.append(grid_path(folder))
            save_png(paths[-1], preview_levels(pipeline.autoencoder, images[:NUM_PREVIEW_IMAGES]))
        done += len(images)
        yield ExportProgress(done, len(dataset), tuple(paths), error / done)
