"""Which level carries shape, which texture? Linear probes on the built-in images.

Fits logistic regressions from the codes of each level to the known factors of the images. The
paper (VQ-VAE-2, Sec. 3.1) says that the top level models shape and the bottom level texture.

    python benchmarks/what_levels_carry.py runs/demo
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import table
from vqvae2.data.synthetic import render
from vqvae2.imaging.convert import to_float
from vqvae2.pipeline import Pipeline

Encoding = Literal["positions", "counts"]

TRAIN, TEST = 4000, 2000
ENCODINGS: tuple[Encoding, ...] = ("positions", "counts")
FIRST = 1_000_000  # beyond the images that the autoencoder was trained on


@dataclass(frozen=True)
class Options:
    """Probe the codes of a run.

    Arguments:
        run: A run on the built-in images at 32x32, such as that of `vqvae2 demo`.
    """

    run: Annotated[Path, tyro.conf.Positional] = Path("runs/demo")


def code_features(codes: Tensor, num_codes: int, encoding: Encoding) -> Tensor:
    """Codes (B, H, W) as a matrix: one-hot positions (B, H W K), or counts (B, K)."""
    one_hot = F.one_hot(codes.flatten(1), num_codes).float()
    if encoding == "positions":
        return one_hot.flatten(1)
    return one_hot.mean(dim=1) * 10


def probe_accuracy(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], decay: float = 1e-3
) -> float:
    """Test accuracy of logistic regression; both sets are (features (B, F), targets (B,))."""
    (x, y), (x_test, y_test) = train, test
    model = nn.Linear(x.shape[1], int(y.max()) + 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(model(x), y) + decay * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    with torch.no_grad():
        return float((model(x_test).argmax(dim=1) == y_test).double().mean())


@torch.no_grad()
def codes_and_factors(
    model: VQVAE, indices: torch.Tensor
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Codes of images, coarsest first, and the factors that the images were rendered from."""
    batch = render(indices, 32, seed=0)
    parts = [model.encode(to_float(part)) for part in torch.split(batch.images, 256)]
    codes = [torch.cat(maps) for maps in zip(*parts, strict=True)]
    factors = {
        "shape (4)": batch.factors.shape_id,
        "texture (3)": batch.factors.texture_id,
        "horizontal position in fifths (5)": quantiles(batch.factors.x),
        "hue of the object in fifths (5)": quantiles(batch.factors.hue),
        "hue of the background in fifths (5)": quantiles(batch.factors.background_hue),
    }
    return codes, factors


def quantiles(values: torch.Tensor, parts: int = 5) -> torch.Tensor:
    """Fifths by rank; both sets are large enough for nearly equal borders."""
    rank = values.argsort().argsort()
    return rank * parts // len(values)


def main() -> None:
    model = Pipeline.open(tyro.cli(Options).run).autoencoder
    codes, factors = codes_and_factors(model, torch.arange(FIRST, FIRST + TRAIN))
    test_indices = torch.arange(FIRST + TRAIN, FIRST + TRAIN + TEST)
    test_codes, test_factors = codes_and_factors(model, test_indices)
    rows = []
    for factor in factors:
        cells = []
        for level, codebook in enumerate(model.config.codebooks):
            for encoding in ENCODINGS:
                x = code_features(codes[level], codebook.num_codes, encoding)
                x_test = code_features(test_codes[level], codebook.num_codes, encoding)
                accuracy = probe_accuracy((x, factors[factor]), (x_test, test_factors[factor]))
                cells.append(f"{100 * accuracy:.1f}")
        rows.append([factor, *cells])
    names = ["top", "bottom"] if len(codes) == 2 else [f"level {i}" for i in range(len(codes))]
    columns = ["factor (classes)", *(f"{name}, {e}" for name in names for e in ENCODINGS)]
    title = f"linear probes, test accuracy in %, {TRAIN} + {TEST} built-in images at 32x32"
    table(title, columns, rows)


if __name__ == "__main__":
    main()
