"""`vqvae2 reconstruct`: pictures through a run's codes and back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor
from vqvae2.cli.sample import open_pipeline
from vqvae2.data.images import load_folder
from vqvae2.metrics.distortion import mean_error
from vqvae2.sheets import save_png, sheet, to_float, to_pil


@dataclass(frozen=True)
class Options:
    """Encode pictures to codes and decode them again, all levels and each level alone.

    Arguments:
        run: A run folder, or a folder or hub name of a saved pipeline.
        pictures: A folder of pictures.
        size: Side in pixels that they are cropped and resized to; the run's by default.
        out: Where to; RUN/reconstructions by default.
        batch: Pictures at a time.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[str, tyro.conf.Positional]
    pictures: Annotated[Path, tyro.conf.Positional]
    size: int | None = None
    out: Path | None = None
    batch: int = 32
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses and reconstructs."""
    options = tyro.cli(Options, prog="vqvae2 reconstruct", args=arguments)
    device = resolve(options.device)
    pipeline = open_pipeline(options.run).to(device)
    size = options.size or pipeline.config.image_size
    pipeline.autoencoder.config.grids(size, size)
    out = options.out or Path(options.run) / "reconstructions"
    total = 0.0
    with monitor() as view:
        pictures = load_folder(options.pictures, size, progress=view.pictures)
        for indices in torch.arange(len(pictures)).split(options.batch):
            images = to_float(pictures.batch(indices).to(device))
            codes = pipeline.encode(images)
            restored = pipeline.decode(codes)
            total += float(mean_error(images, restored)) * len(images)
            for index, image in zip(indices.tolist(), restored, strict=True):
                name = Path(pictures.name(index)).with_suffix(".png").name
                save_png(out / name, to_pil(image), {"run": options.run, "source": name})
            if indices[0] == 0:
                alone = [pipeline.decode(codes, [level]) for level in range(len(codes))]
                names = ["picture", "all levels", *(f"level {i} alone" for i in range(len(alone)))]
                rows = [row[:10] for row in (images, restored, *alone)]
                save_png(out / "sheet.png", sheet(rows, names, scale=max(1, 96 // size)))
            view.pictures("reconstructing", int(indices[-1]) + 1, len(pictures))
    for name, reason in pictures.reasons.items():
        console.print(f"[yellow]skipped {name}: {reason}[/yellow]")
    count = len(pictures)
    error = f"MSE {total / count:.5f}"
    console.print(f"{count} pictures in {out}, {error}; compared on {out / 'sheet.png'}")
