"""`vqvae2 doctor`: checks whether a run is healthy."""

from dataclasses import dataclass

from vqvae2.cli.display import console
from vqvae2.cli.options import RunPath, parse
from vqvae2.report.doctor import diagnose
from vqvae2.runs.folder import RunFolder

COLOURS = {"good": "green", "warning": "yellow", "problem": "red"}
WIDTH = max(map(len, COLOURS))


@dataclass(frozen=True)
class Options:
    """Check a run for unused codes and levels, overfitted priors, and damaged or mixed files.

    Arguments:
        run: A run folder.
    """

    run: RunPath


def main(arguments: list[str]) -> None:
    """Prints all findings."""
    options = parse(Options, "doctor", arguments)
    for finding in diagnose(RunFolder(options.run)):
        console.print(f"{finding.verdict:>{WIDTH}}", style=COLOURS[finding.verdict], end="")
        console.print(f"  {finding.text}")
        if finding.advice:
            console.print(f"{'':{WIDTH}}  {finding.advice}")
