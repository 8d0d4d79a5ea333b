"""`vqvae2 presets`: the complete configurations by name."""

import json
from dataclasses import dataclass
from typing import Annotated

import torch
from tyro.conf import FlagCreatePairsOff, Positional

from vqvae2.cli.display import table
from vqvae2.cli.options import optional, parse
from vqvae2.configuration import to_dict
from vqvae2.priors import Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.config_file import to_toml
from vqvae2.runs.presets import EXPECTED, PRESETS, find_preset

BYTES_PER_PARAMETER = 20  # float32: weights, their average, gradients, two moments of Adam


@dataclass(frozen=True)
class Options:
    """List the presets with the sizes of their images, codes and models, or print one of them.

    A printed preset is a file to begin from: write it into run.toml, change what you like, and
    give it to `vqvae2 train` as its config.

    Arguments:
        name: A preset, to print it alone.
        toml: Print all its fields as TOML.
        json: Print all its fields as JSON.
    """

    name: Annotated[str, Positional, optional("NAME")] = ""
    toml: FlagCreatePairsOff[bool] = False
    json: FlagCreatePairsOff[bool] = False


def main(arguments: list[str]) -> None:
    """Prints one line per preset; models are counted without memory."""
    options = parse(Options, "presets", arguments)
    presets = {options.name: find_preset(options.name)} if options.name else PRESETS
    if options.toml or options.json:
        if not options.name:
            raise ValueError("Name the preset to print: `vqvae2 presets NAME --toml`.")
        fields = to_dict(presets[options.name]())
        print(to_toml(fields) if options.toml else json.dumps(fields, indent=2))
        return
    title = (
        "M parameters: of the autoencoder, then of the prior of each level, coarsest first.\n"
        "GiB: weights and optimizer state of the largest model; activations are added to that."
    )
    columns = ["preset", "side", "code grids", "M parameters", "GiB", "expect"]
    table(title, columns, [row(name, preset()) for name, preset in presets.items()])


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
