"""`vqvae2 demo`: everything on the built-in images, in minutes, with a report."""

from dataclasses import dataclass

from vqvae2.cli.display import console, table
from vqvae2.cli.options import parse
from vqvae2.cli.train import Options as TrainOptions
from vqvae2.cli.train import resolve, train
from vqvae2.data.images import open_images
from vqvae2.metrics.agreement import class_agreement
from vqvae2.pipeline import Pipeline
from vqvae2.report.report import write_report


@dataclass(frozen=True)
class Options:
    """Train on the built-in images, draw samples, let a classifier judge them, write a report.

    Arguments:
        run: The run folder.
    """

    run: str = "runs/demo"


def main(arguments: list[str]) -> None:
    """Parses and does the whole job."""
    options = parse(Options, "demo", arguments)
    training = TrainOptions(preset="demo", run=options.run)
    folder, run = resolve(training, [])
    train(folder, run, training)
    data = open_images(folder.read().data)
    agreement = class_agreement(Pipeline.open(options.run), data)
    rows = [
        ["validation images", f"{100 * agreement.on_images:.1f} %"],
        ["their reconstructions", f"{100 * agreement.on_reconstructions:.1f} %"],
        [f"{agreement.num_samples} samples", f"{100 * agreement.on_samples:.1f} %"],
    ]
    table("classes recognised by a classifier trained on the images", ["of", "right"], rows)
    console.print(f"report    {write_report(folder)}")
