"""The same codes by the plain and by the sharp decoder, enlarged four times.

    python examples/decoder_sheet.py runs/cifar10 data/cifar10/test --out sheet.png

The first rows are images of a folder and their reconstructions by either decoder, one image of
each class; the last ones are samples, one of each class, that were drawn once and decoded twice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from PIL import Image

from vqvae2 import Pipeline
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png


@dataclass(frozen=True)
class Options:
    """Write the sheet.

    Arguments:
        model: A run folder or saved pipeline with a sharp decoder.
        images: A folder with one sub-folder per class.
        number: Which image of each class, and which seed, is shown.
        out: PNG file.
    """

    model: Annotated[str, tyro.conf.Positional]
    images: Annotated[Path, tyro.conf.Positional]
    number: int = 0
    out: Path = Path("decoders.png")


def main() -> None:
    options = tyro.cli(Options)
    pipeline = Pipeline.open(options.model)
    folders = sorted(folder for folder in options.images.iterdir() if folder.is_dir())
    files = [sorted(folder.iterdir())[options.number] for folder in folders]
    images = pipeline.batch_of([Image.open(file) for file in files])
    codes = pipeline.sample(num_images=pipeline.num_classes, seed=options.number).codes
    rows = [
        images,
        pipeline.reconstruct(images, "plain"),
        pipeline.reconstruct(images, "sharp"),
        pipeline.decode(codes, decoder="plain"),
        pipeline.decode(codes, decoder="sharp"),
    ]
    names = ["image", "plain", "sharp", "sample, plain", "sample, sharp"]
    save_png(options.out, image_grid(rows, names, [folder.name for folder in folders], scale=4))


if __name__ == "__main__":
    main()
