"""`vqvae2 presets`: the complete configurations by name."""

from dataclasses import dataclass

import torch

from vqvae2.cli.display import table
from vqvae2.cli.options import parse
from vqvae2.priors import Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import EXPECTED, PRESETS

BYTES_PER_PARAMETER = 20  # float32: weights, their average, gradients, two moments of Adam


@dataclass(frozen=True)
class Options:
    """List the presets with the sizes of their images, codes and models."""


def main(arguments: list[str]) -> None:
    """Prints one line per preset; models are counted without memory."""
    parse(Options, "presets", arguments)
    title = (
        "M parameters: of the autoencoder, then of the prior of each level, coarsest first.\n"
        "GiB: weights and optimizer state of the largest model; activations are added to that."
    )
    columns = ["preset", "side", "code grids", "M parameters", "GiB", "expect"]
    table(title, columns, [row(name, preset()) for name, preset in PRESETS.items()])


def row(name: str, config: RunConfig) -> list[str]:
    """The line of one preset."""
    with torch.device("meta"):
        priors = [Prior(level.prior, config.domain(i)) for i, level in enumerate(config.levels)]
        counts = [num_parameters(model) for model in (config.autoencoder.model.build(), *priors)]
    return [
        name,
        f"{config.data.size}",
        " + ".join(f"{grid.height}x{grid.width}" for grid in config.grids()),
        ", ".join(f"{count / 1e6:.1f}" for count in counts),
        f"{max(counts) * BYTES_PER_PARAMETER / 2**30:.1f}",
        EXPECTED[name],
    ]


def num_parameters(module: torch.nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
