"""`vqvae2 report`: everything about a run in one HTML file."""

import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor
from vqvae2.cli.options import Device, RunPath, optional, parse, require_writable
from vqvae2.report.report import write_report
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Write a page about a run: samples, a verdict, reconstructions, curves, metrics, config.

    Arguments:
        run: A run folder.
        open: Open the page in a browser.
        out: The HTML file; by default RUN/report.html.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: RunPath
    open: FlagCreatePairsOff[bool] = False
    out: Annotated[str, optional("FILE")] = ""
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Writes the report."""
    options = parse(Options, "report", arguments)
    path = Path(options.out or options.run / "report.html")
    require_writable(path, "--out FILE")
    with monitor() as view:
        write_report(RunFolder(options.run), resolve(options.device), path, view.track)
    console.print(f"{path}  ({path.stat().st_size / 1e6:.1f} MB, opens in any browser)")
    if options.open and not webbrowser.open(path.resolve().as_uri()):
        console.print("No browser was found; open the file yourself.", style="yellow")
