"""Does the top carry the shape and the bottom the texture? Linear probes on the built-in images.

Fits logistic regressions from the codes of each level to the known factors of the images
(VQ-VAE-2, Sec. 3.1 claims the division).

    python benchmarks/what_levels_carry.py runs/demo
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import table
from vqvae2.data.synthetic import render
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.probe import code_features, probe_accuracy
from vqvae2.pipeline import Pipeline

TRAIN, TEST = 4000, 2000
FIRST = 1_000_000  # far from the images that the autoencoder saw


@dataclass(frozen=True)
class Options:
    """Probe the codes of a run.

    Arguments:
        run: A run on the built-in images at 32x32, as `vqvae2 demo` leaves one.
    """

    run: Annotated[Path, tyro.conf.Positional] = Path("runs/demo")


@torch.no_grad()
def codes_of(model: VQVAE, indices: torch.Tensor) -> tuple[list[torch.Tensor], dict]:
    batch = render(indices, 32, seed=0)
    parts = [model.encode(to_float(part)) for part in torch.split(batch.images, 256)]
    codes = [torch.cat(maps) for maps in zip(*parts, strict=True)]
    factors = {
        "shape (4)": batch.factors.shape_id,
        "texture (3)": batch.factors.texture_id,
        "x in fifths (5)": quantiles(batch.factors.x),
        "colour in fifths (5)": quantiles(batch.factors.hue),
        "background in fifths (5)": quantiles(batch.factors.background_hue),
    }
    return codes, factors


def quantiles(values: torch.Tensor, parts: int = 5) -> torch.Tensor:
    """Fifths by rank; both sets are large enough for the same borders."""
    rank = values.argsort().argsort()
    return rank * parts // len(values)


def main() -> None:
    model = Pipeline.open(tyro.cli(Options).run).autoencoder
    train, truth = codes_of(model, torch.arange(FIRST, FIRST + TRAIN))
    test, test_truth = codes_of(model, torch.arange(FIRST + TRAIN, FIRST + TRAIN + TEST))
    rows = []
    for factor in truth:
        cells = []
        for level, codebook in enumerate(model.config.codebooks):
            for kind in ("positions", "counts"):
                x = code_features(train[level], codebook.num_codes, kind)
                x_test = code_features(test[level], codebook.num_codes, kind)
                pair = (x, truth[factor]), (x_test, test_truth[factor])
                cells.append(f"{100 * probe_accuracy(*pair):.1f}")
        rows.append([factor, *cells])
    names = ["top", "bottom"] if len(train) == 2 else [f"level {i}" for i in range(len(train))]
    columns = ["factor (classes)", *(f"{n}, {k}" for n in names for k in ("positions", "counts"))]
    title = f"linear probes, test accuracy in %, {TRAIN} + {TEST} built-in images at 32x32"
    table(title, columns, rows)


if __name__ == "__main__":
    main()
