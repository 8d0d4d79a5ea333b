"""`vqvae2 evaluate`: the figures of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, show_figures
from vqvae2.cli.parse import parse
from vqvae2.cli.sample import at_least_one
from vqvae2.training.evaluate import evaluate
from vqvae2.training.run import RunFolder


@dataclass(frozen=True)
class Options:
    """Measure a run on held-out pictures: distortion, codes in use, likelihood of the codes.

    Arguments:
        run: A run folder.
        limit: Held-out pictures, at most; evenly spread over the classes.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    limit: int = 10_000
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses, measures, prints."""
    options = parse(Options, "evaluate", arguments)
    at_least_one("limit", options.limit)
    metrics = evaluate(RunFolder(options.run), options.limit, resolve(options.device))
    show_figures(metrics)
    console.print(f"all figures in {options.run / 'metrics.json'}")
