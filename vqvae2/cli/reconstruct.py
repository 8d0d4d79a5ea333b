"""`vqvae2 reconstruct`: images through a run's codes and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, count, monitor
from vqvae2.cli.options import parse
from vqvae2.cli.sample import at_least_one, open_pipeline, output_folder
from vqvae2.data.images import load_folder
from vqvae2.imaging.convert import to_float, to_pil
from vqvae2.imaging.png import save_png
from vqvae2.imaging.previews import preview_levels
from vqvae2.metrics.distortion import mean_error


@dataclass(frozen=True)
class Options:
    """Encode images to codes and decode them again, all levels and each level alone.

    Arguments:
        run: A run folder, or a folder or hub name of a saved pipeline.
        images: A folder of images.
        size: Side in pixels that they are cropped and resized to; 0 is the run's own.
        out: Where to; RUN/reconstructions by default, ./reconstructions for what is no run.
        batch: Images at a time.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    images: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGES")]
    size: int = 0
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    batch: int = 32
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses and reconstructs."""
    options = parse(Options, "reconstruct", arguments)
    at_least_one("batch", options.batch)
    device = resolve(options.device)
    pipeline = open_pipeline(options.run).to(device)
    size = options.size or pipeline.config.image_size
    pipeline.autoencoder.config.grids(size, size)
    out = Path(options.out) if options.out else output_folder(options.run, "reconstructions")
    grid = out.with_name(f"{out.name}-sheet.png")
    total = 0.0
    with monitor() as view:
        dataset = load_folder(options.images, size, progress=view.track)
        for indices in torch.split(torch.arange(len(dataset)), options.batch):
            images = to_float(dataset.batch(indices).to(device))
            restored = pipeline.reconstruct(images)
            total += float(mean_error(images, restored)) * len(images)
            for index, image in zip(indices.tolist(), restored, strict=True):
                name = dataset.name(index)
                # The whole name with its folders: two images may differ in nothing else.
                settings = {"run": options.run, "source": name}
                save_png(out / f"{name}.png", to_pil(image), settings)
            if indices[0] == 0:
                save_png(grid, preview_levels(pipeline.autoencoder, images[:10]))
            view.track("reconstructing", int(indices[-1]) + 1, len(dataset))
    for name, reason in dataset.reasons.items():
        console.print(f"skipped {name}: {reason}", style="yellow")
    error = f"MSE {total / len(dataset):.5f}"
    console.print(f"{count(len(dataset), 'image')} in {out}, {error}; compared on {grid}")
