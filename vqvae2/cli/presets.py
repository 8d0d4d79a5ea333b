"""`vqvae2 presets`: the complete configurations by name."""

from dataclasses import dataclass

import torch

from vqvae2.cli.display import table
from vqvae2.cli.options import parse
from vqvae2.priors import Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import EXPECTED, PRESETS


@dataclass(frozen=True)
class Options:
    """List the presets: images, code grids, parameters, memory, what to expect."""


def main(arguments: list[str]) -> None:
    """Prints the table; models are only counted, never made."""
    parse(Options, "presets", arguments)
    columns = ["preset", "side", "code grids", "M parameters", "GiB", "expect"]
    title = (
        "parameters: autoencoder, then a prior a level; GiB: weights and optimizer of the largest"
    )
    table(title, columns, [row(name, preset()) for name, preset in PRESETS.items()])


def row(name: str, run: RunConfig) -> list[str]:
    """One preset's line."""
    with torch.device("meta"):
        autoencoder = count(run.autoencoder.model.build())
        priors = [count(Prior(c.prior, run.domain(i))) for i, c in enumerate(run.levels)]
    grids = " + ".join(f"{grid.height}x{grid.width}" for grid in run.grids())
    # Weights, their average, their gradients and Adam's two moments, float32; activations, which
    # grow with the batch, come on top.
    largest = max(autoencoder, *priors)
    return [
        name,
        f"{run.data.size}",
        grids,
        ", ".join(f"{n / 1e6:.1f}" for n in (autoencoder, *priors)),
        f"{largest * 20 / 2**30:.1f}",
        EXPECTED[name],
    ]


def count(module: torch.nn.Module) -> int:
    """Parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
