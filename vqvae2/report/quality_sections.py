"""The section of the report about the quality of samples (Sec. 3.3, 4.2 and 4.3)."""

from collections.abc import Iterable

from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import (
    AccuracyScore,
    ClassAgreement,
    Measurement,
    OutOfDistribution,
    RunMetrics,
    SampleMetrics,
)
from vqvae2.report import plots
from vqvae2.report.blocks import Block, Curve, Plots, Table, Text, WideImage, curve, embedded_file
from vqvae2.report.formatting import (
    agreement_rows,
    distance_table,
    measured_sets,
    percent,
    sample_notes,
)
from vqvae2.report.source import ReportSource, Unavailable

MAX_CLASSES = 20  # columns of the accuracy score
DISTANCES = ("fid", "inception_score")
SHARES = ("precision", "recall", "accuracy_score")


def quality(source: ReportSource) -> list[Block]:
    """The quality of samples by every instrument that was used."""
    metrics = source.folder.read_metrics()
    blocks: list[Block] = []
    for extractor, samples in metrics.samples.items():
        blocks += distances(source, extractor, samples)
    if metrics.accuracy_score:
        blocks += accuracy_score(metrics.accuracy_score)
    if metrics.class_agreement:
        blocks += class_agreement(metrics.class_agreement)
    for folder, result in metrics.out_of_distribution.items():
        blocks += detection(folder, result)
    if not blocks:
        command = source.command("evaluate --samples 10000")
        raise Unavailable(
            f"Samples were not measured yet: {command}. This downloads the Inception network "
            "once; with `--extractor own` it trains a classifier instead."
        )
    outdated = outdated_samples(source, metrics)
    return [Text(outdated, "note"), *blocks] if outdated else blocks


def outdated_samples(source: ReportSource, metrics: RunMetrics) -> str:
    """A sentence if any result belongs to other weights than those of the run; "" otherwise."""
    models = fingerprints(source.pipeline)
    if all(origin.models == models for _, _, origin in metrics.sample_provenance()):
        return ""
    return (
        "Models were trained after some of these evaluations. To measure again with --samples, "
        f"--cas or --outside: {source.command('evaluate --samples 10000')}."
    )


def distances(source: ReportSource, extractor: str, metrics: SampleMetrics) -> list[Block]:
    """Samples, reconstructions and validation images against training images."""
    blocks: list[Block] = [
        Text(
            f"{extractor} compares each set with as many training images, {metrics.num_samples:,} "
            "for samples. Values of another network or another number of images are not "
            "comparable. Precision is the share of the set that "
            "is close to training images, recall the share of training images that are close to "
            f"the set. {sample_notes(extractor, metrics)}"
        ),
        Table(*distance_table(extractor, measured_sets(metrics))),
    ]
    curves = [*rejection_curves(extractor, metrics.by_fraction), *tradeoff_curves(metrics)]
    if curves:
        blocks.append(Plots(curves))
    neighbours = source.folder.neighbours(extractor)
    if neighbours.is_file():
        text = f"Left a sample, then the training images that {extractor} finds nearest to it."
        image = embedded_file(neighbours, "samples and their nearest training images")
        blocks += [Text(f"Memorisation: {text}"), WideImage(image)]
    return blocks


def rejection_curves(extractor: str, by_fraction: dict[str, Measurement]) -> list[Curve]:
    """Metrics by the selected fraction of samples."""
    if len(by_fraction) < 2:
        return []
    fractions, curves = [float(fraction) for fraction in by_fraction], []
    for name in DISTANCES:
        title = METRICS[name].title(extractor)
        values = [measurement[name] for measurement in by_fraction.values()]
        plot = plots.rejection_plot(fractions, {title: values}, title)
        curves.append(curve(title, plot))
    shares = {
        METRICS[name].name: [measurement[name] for measurement in by_fraction.values()]
        for name in SHARES
        if is_measured(name, by_fraction.values())
    }
    plot = plots.rejection_plot(fractions, shares, "share")
    return [*curves, curve("Quality and diversity", plot)]


def is_measured(name: str, measurements: Iterable[Measurement]) -> bool:
    """Whether a metric was measured of every set."""
    return all(measurement.get(name) is not None for measurement in measurements)


def tradeoff_curves(metrics: SampleMetrics) -> list[Curve]:
    """Precision against recall, by rejection and by temperature."""
    methods = {"rejection": metrics.by_fraction, "temperature": metrics.by_temperature}
    if sum(map(len, methods.values())) < 2:
        return []
    plot = plots.tradeoff_plot(
        {
            method: {name: (one["recall"], one["precision"]) for name, one in by_setting.items()}
            for method, by_setting in methods.items()
        }
    )
    return [curve("Rejection and temperature", plot)]


def accuracy_score(score: AccuracyScore) -> list[Block]:
    """The classification accuracy score, per class and over all classes."""
    classes = evenly_spaced(len(score.class_names), MAX_CLASSES).tolist()
    rows = [
        [
            name,
            *(percent(tested["real"].by_class[label]) for label in classes),
            *(percent(accuracy.top1) for accuracy in tested.values()),
        ]
        for name, tested in score.trained_on.items()
    ]
    tested_sets = list(next(iter(score.trained_on.values())))
    names = [score.class_names[label] for label in classes]
    text = (
        f"Classification accuracy score: a ResNet-{score.training.depth} is trained on "
        f"{score.num_images:,} images of each kind and tested on validation images."
    )
    header = ["trained on", *names, *(f"all, {name}" for name in tested_sets)]
    return [Text(text), Table(header, rows)]


def class_agreement(agreement: ClassAgreement) -> list[Block]:
    """How often a classifier predicts the class that was requested of a sample."""
    text = (
        f"A classifier trained on the training images predicts the class of "
        f"{agreement.num_samples:,} samples. A prediction is correct if it is the requested class."
    )
    return [Text(text), Table(["set", "correct"], agreement_rows(agreement))]


def detection(folder: str, result: OutOfDistribution) -> list[Block]:
    """How well each score separates validation images from those of a folder."""
    text = (
        f"Out-of-distribution detection: {result.num_validation:,} validation images against "
        f"{result.num_outside:,} images of {folder}. AUROC is the area under the ROC curve: 1 "
        "separates the two sets perfectly, 0.5 is chance. Likelihoods are known to prefer smooth "
        "images of any kind."
    )
    rows = [[name, format_metric("auroc", one.auroc)] for name, one in result.scores.items()]
    return [Text(text), Table(["score", METRICS["auroc"].name], rows)]
