"""`vqvae2 doctor`: whether a run is healthy, in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.display import console
from vqvae2.doctor import diagnose
from vqvae2.training.run import RunFolder

COLOURS = {"good": "green", "watch": "yellow", "bad": "red"}


@dataclass(frozen=True)
class Options:
    """Look for collapsed levels, dead codes, overfitted priors, mismatched or damaged files.

    Arguments:
        run: A run folder.
    """

    run: Annotated[Path, tyro.conf.Positional]


def main(arguments: list[str]) -> None:
    """Parses, looks, prints."""
    options = tyro.cli(Options, prog="vqvae2 doctor", args=arguments)
    for finding in diagnose(RunFolder(options.run)):
        colour = COLOURS[finding.verdict]
        console.print(f"[{colour}]{finding.verdict:>5}[/{colour}]  {finding.what}", soft_wrap=True)
        if finding.advice:
            console.print(f"       {finding.advice}", soft_wrap=True)
