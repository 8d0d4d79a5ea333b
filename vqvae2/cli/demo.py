"""`vqvae2 demo`: everything on the built-in images, in minutes, with a report."""

from dataclasses import dataclass

from vqvae2.cli.display import console, monitor, show_table
from vqvae2.cli.options import parse
from vqvae2.cli.train import Options as TrainOptions
from vqvae2.cli.train import resolve, train
from vqvae2.evaluation.class_agreement import evaluate_class_agreement
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.report.report import write_report
from vqvae2.report.tables import agreement_table


@dataclass(frozen=True)
class Options:
    """Train on the built-in images, draw samples, test them with a classifier, write a report.

    Arguments:
        run: The run folder.
    """

    run: str = "runs/demo"


def main(arguments: list[str]) -> None:
    """Trains, measures and reports."""
    options = parse(Options, "demo", arguments)
    training = TrainOptions(preset="demo", run=options.run)
    folder, config = resolve(training, [])
    train(folder, config, training)
    with monitor() as view:
        agreement = evaluate_class_agreement(Evaluation.open(folder, progress=view.track))
        report = write_report(folder, progress=view.track)
    show_table(agreement_table(agreement))
    console.print(f"report    {report}")
