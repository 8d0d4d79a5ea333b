"""`vqvae2 report`: everything about a run in one HTML file."""

from dataclasses import dataclass

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console
from vqvae2.cli.options import Device, RunPath, parse
from vqvae2.report.report import write_report
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Write RUN/report.html: images, levels, codebooks, curves, samples, metrics and config.

    Arguments:
        run: A run folder.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: RunPath
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Writes the report."""
    options = parse(Options, "report", arguments)
    path = write_report(RunFolder(options.run), resolve(options.device))
    console.print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB, opens in any browser)")
