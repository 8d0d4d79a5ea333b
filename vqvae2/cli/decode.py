"""`vqvae2 decode`: a table of codes to images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import resolve
from vqvae2.cli.display import console, monitor
from vqvae2.cli.options import ModelName, OutputOptions, parse, require_positive
from vqvae2.cli.output import track_export
from vqvae2.export.codes import MAX_GRID_IMAGES, export_decoded, read_image_codes
from vqvae2.export.progress import grid_text
from vqvae2.messages import counted


@dataclass(frozen=True)
class Options:
    """Decode the codes that `vqvae2 encode` wrote, changed or not, into PNG files.

    Arguments:
        run: The model that encoded the images: a run folder, a saved pipeline, the name of a
            model of this package or of the hub.
        codes: The Parquet file.
        output: Where the images go.
    """

    run: ModelName
    codes: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CODES")]
    output: tyro.conf.OmitArgPrefixes[OutputOptions]


def main(arguments: list[str]) -> None:
    """Decodes codes and writes the images."""
    options = parse(Options, "decode", arguments)
    output = options.output
    require_positive("batch", output.batch)
    codes = read_image_codes(options.codes)
    folder = output.folder(options.run, "decoded")
    pipeline = output.open(options.run, resolve(output.device))
    with monitor() as view:
        reports = export_decoded(pipeline, codes, folder, output.batch, options.run)
        track_export(view, "decoding", folder, reports)
    number = len(codes.names)
    grid = grid_text(folder, min(number, MAX_GRID_IMAGES), number)
    console.print(f"{counted(number, 'image')} in {folder}; {grid}")
