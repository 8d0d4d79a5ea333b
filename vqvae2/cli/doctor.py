"""`vqvae2 doctor`: whether a run is healthy, in words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.display import console
from vqvae2.cli.options import parse
from vqvae2.report.doctor import diagnose
from vqvae2.runs.folder import RunFolder

COLOURS = {"good": "green", "watch": "yellow", "bad": "red"}


@dataclass(frozen=True)
class Options:
    """Look for collapsed levels, dead codes, overfitted priors, mismatched or damaged files.

    Arguments:
        run: A run folder.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


def main(arguments: list[str]) -> None:
    """Parses, looks, prints."""
    options = parse(Options, "doctor", arguments)
    for finding in diagnose(RunFolder(options.run)):
        console.print(f"{finding.verdict:>5}", style=COLOURS[finding.verdict], end="")
        console.print(f"  {finding.what}")
        if finding.advice:
            console.print(f"       {finding.advice}")
