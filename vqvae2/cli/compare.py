"""`vqvae2 compare`: runs and folders of images side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, show_table, table
from vqvae2.cli.options import Device, optional, parse, require_positive, require_writable
from vqvae2.configuration import JsonObject, to_dict
from vqvae2.evaluation.comparison import (
    choose_decoder,
    common_side,
    compare_sets,
    is_run,
    metrics_of_runs,
    open_set,
    parse_set,
)
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.files import write_json
from vqvae2.pipeline import DecoderName
from vqvae2.report.formatting import format_number
from vqvae2.report.tables import set_table
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Compare runs, or folders of images.

    Without --against, prints what `vqvae2 evaluate` has measured of each run, one column per run.

    With --against, compares the images of each set with those of another: FID, KID, inception
    score, precision and recall. A set is a FOLDER of images (for instance the samples of another
    model); RUN:samples (or just RUN), RUN:reconstructions, RUN:validation or RUN:train; or
    DATA:train or DATA:validation of any data set.

    Arguments:
        sets: Runs, or sets of images.
        against: The set to compare with, usually real images.
        extractor: The network that compares images: path or URL of a TorchScript file, hub:NAME,
            efficientnet-lite0, or own to train a classifier on the run after --against. The
            default is the Inception network of published results, which is downloaded once.
        extractor_name: Name of the network in the results; its file name by default.
        count: Number of images of each set, at most as many as the smallest set has.
        size: Side in pixels that images in folders are cropped and resized to; by default the
            size of a run among the sets, or the images as they are.
        paired: Also compare images of the same name: PSNR, SSIM and MS-SSIM.
        decoder: plain or sharp: what decodes samples and reconstructions of runs; by default sharp
            where a run has trained one.
        out: Also write the results into this JSON file.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    sets: Annotated[tuple[str, ...], tyro.conf.Positional, optional("SET ...")]
    against: Annotated[str, optional("SET")] = ""
    extractor: Annotated[str, optional("NETWORK")] = ""
    extractor_name: Annotated[str, optional("NAME")] = ""
    count: int = 10_000
    size: int = 0
    paired: bool = False
    decoder: Annotated[DecoderName, optional("NAME")] = ""
    out: Annotated[str, optional("FILE")] = ""
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Compares and prints."""
    options = parse(Options, "compare", arguments)
    require_positive("count", options.count)
    if options.size < 0:
        raise ValueError(f"--size is a side in pixels, got {options.size}.")
    if not options.sets:
        raise ValueError("Expected at least one run or folder to compare, got none.")
    if options.decoder and not options.against:
        raise ValueError("--decoder needs --against: without it no images are decoded.")
    if options.out:
        require_writable(Path(options.out), "--out FILE")
    results = compare_images(options) if options.against else compare_runs(options)
    if options.out:
        write_json(Path(options.out), "vqvae2-comparison", 1, results)
        console.print(f"results in {options.out}")


def compare_runs(options: Options) -> JsonObject:
    """Prints what was measured of runs, one column per run."""
    for name in options.sets:
        if not is_run(Path(name)):
            raise ValueError(
                f"{name} is not a run folder; to compare images add --against SET, to compare "
                "runs name run folders."
            )
    columns = metrics_of_runs([RunFolder(Path(name)) for name in options.sets])
    names = dict.fromkeys(name for metrics in columns.values() for name in metrics)
    rows = [
        [name, *(format_number(one[name]) if name in one else "" for one in columns.values())]
        for name in names
    ]
    table("Metrics that `vqvae2 evaluate` has measured", ["metric", *columns], rows)
    return {"runs": columns}


def compare_images(options: Options) -> JsonObject:
    """Prints the distances of sets of images to another set."""
    device, names = resolve(options.device), [options.against, *options.sets]
    # "own" is a classifier of the images of the run after --against.
    folder = RunFolder(parse_set(options.against)[0])
    size, name = options.size or common_side(names), options.extractor_name
    with monitor() as view:
        extractor = extractor_for(folder, options.extractor, name, device, view.track)
        reference, *others = (
            open_set(name, size, options.count, device, view.track) for name in names
        )
        choose_decoder([reference, *others], options.decoder)
        result = compare_sets(reference, others, extractor, options.count, options.paired)
    title = (
        f"Sets of {result.num_images:,} images of {result.side}x{result.side} pixels against "
        f"{options.against}"
    )
    show_table(set_table(title, result.sets, extractor.name))
    if options.paired:
        show_table(set_table("Images of the same name", result.pairs))
    return to_dict(result)
