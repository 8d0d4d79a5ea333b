"""`vqvae2 compare`: runs and folders of images side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, table
from vqvae2.cli.options import parse, require_positive
from vqvae2.configuration import JsonObject, to_dict
from vqvae2.evaluation.comparison import (
    common_side,
    compare_sets,
    is_run,
    metrics_of_runs,
    open_set,
    parse_set,
)
from vqvae2.evaluation.samples import extractor_of
from vqvae2.files import write_json
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import Measurement
from vqvae2.report.formatting import distance_table, figure
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Put runs or folders of images side by side.

    Alone, runs are compared by what `evaluate` wrote of them. With --against, the images of each
    set are compared with those of another: FID, KID, inception score, precision and recall. A set
    is a FOLDER of images (another model's samples, say), RUN:samples (or just RUN),
    RUN:reconstructions, RUN:validation or RUN:train of a run, or DATA:train or DATA:validation
    of any data set.

    Arguments:
        sets: Runs, or sets of images.
        against: The set that they are compared with, usually real images.
        extractor: The network that compares: path or URL of a TorchScript file, hub:NAME, or own
            for a classifier trained on the run after --against; the Inception network of the
            published figures by default, which is fetched once.
        extractor_name: What figures call it; the file's name by default.
        count: Images of each set, at most as many as the smallest has.
        size: Side in pixels that folders are cropped and resized to; by default that of a run
            among the sets, or the images as they are.
        paired: Also PSNR, SSIM and MS-SSIM, image by image of the same name.
        out: Also write the figures into this JSON file.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    sets: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SET")]
    against: Annotated[str, tyro.conf.arg(metavar="SET")] = ""
    extractor: Annotated[str, tyro.conf.arg(metavar="NETWORK")] = ""
    extractor_name: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    count: int = 10_000
    size: int = 0
    paired: bool = False
    out: Annotated[str, tyro.conf.arg(metavar="FILE")] = ""
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses, compares, prints."""
    options = parse(Options, "compare", arguments)
    require_positive("count", options.count)
    if options.size < 0:
        raise ValueError(f"--size is a side in pixels, got {options.size}.")
    if not options.sets:
        raise ValueError("Expected at least one run or folder to compare, got none.")
    found = compare_with(options) if options.against else side_by_side(options)
    if options.out:
        write_json(Path(options.out), "vqvae2-comparison", 1, found)
        console.print(f"all figures in {options.out}")


def side_by_side(options: Options) -> JsonObject:
    """Prints what was measured of runs, a column a run."""
    for where in options.sets:
        if not is_run(Path(where)):
            raise ValueError(
                f"{where} is not a run folder; to compare images give --against SET, to compare "
                "runs give run folders."
            )
    columns = metrics_of_runs([RunFolder(Path(where)) for where in options.sets])
    names = list(dict.fromkeys(name for figures in columns.values() for name in figures))
    rows = [
        [name, *(figure(found[name]) if name in found else "" for found in columns.values())]
        for name in names
    ]
    table("what `vqvae2 evaluate` wrote", ["figure", *columns], rows)
    return {"runs": columns}


def compare_with(options: Options) -> JsonObject:
    """Prints the distances of sets of images to another."""
    device, against = resolve(options.device), options.against
    names = [against, *options.sets]
    # "own" is a classifier of the images of the run that is compared with.
    folder = RunFolder(parse_set(against)[0])
    extractor = extractor_of(options.extractor, options.extractor_name, folder, device)
    size = options.size or common_side(names)
    with monitor() as view:
        reference, *others = (
            open_set(where, size, options.count, device, view.track) for where in names
        )
        found = compare_sets(reference, others, extractor, options.count, options.paired)
    head, *rows = distance_table(extractor.name, found.sets)
    side = found.side
    table(f"against {against}, {found.num_images:,} images each, {side}x{side}", head, rows)
    if options.paired:
        show_pairs(found.pairs)
    return to_dict(found)


def show_pairs(pairs: dict[str, Measurement]) -> None:
    """Prints distortion, one row per set."""
    keys = ("mse", "psnr_db", "ssim", "ms_ssim")
    rows = [[name, *(figure(one.get(key)) for key in keys)] for name, one in pairs.items()]
    table("image by image", ["set", *(METRICS[key].title() for key in keys)], rows)
