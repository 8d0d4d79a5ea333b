"""`vqvae2 doctor`: checks whether a run is healthy."""

import textwrap
from dataclasses import dataclass

from vqvae2.cli.display import console, monitor
from vqvae2.cli.options import RunPath, parse
from vqvae2.report.doctor import diagnose
from vqvae2.runs.folder import RunFolder

COLOURS = {"good": "green", "warning": "yellow", "problem": "red", "open": ""}
WIDTH = max(map(len, COLOURS))
INDENT = WIDTH + 2


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
    with monitor():
        findings = diagnose(RunFolder(options.run))
    for finding in findings:
        console.print(f"{finding.verdict:>{WIDTH}}", style=COLOURS[finding.verdict], end="  ")
        console.print(beside(finding.text))
        if finding.advice:
            console.print(f"{'':{INDENT}}{beside(finding.advice)}")


def beside(text: str) -> str:
    """The text in lines that fit beside the verdicts on a terminal; in a pipe, one line."""
    if not console.is_terminal:
        return text
    width = max(20, console.width - INDENT)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return f"\n{'':{INDENT}}".join(lines)
