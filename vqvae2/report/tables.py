"""Tables of results, as the report and the command line print them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vqvae2.data.order import evenly_spaced
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import (
    AccuracyScore,
    ClassAgreement,
    Measurement,
    OutOfDistribution,
    SampleMetrics,
    TwoSampleTests,
)


@dataclass(frozen=True)
class Table:
    """A table; with `has_meanings` the first column is code and the second explains it.

    `meanings` explains columns, by their title in the header.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    has_meanings: bool = False
    meanings: Mapping[str, str] = field(default_factory=dict)


def metric_cells(measurement: Measurement, num_levels: int) -> dict[str, list[str]]:
    """The values of each metric as text: over all levels, then per level; "" where not defined."""
    cells = {}
    for name in dict.fromkeys([*measurement.values, *measurement.per_level]):
        values = [measurement.get(name), *measurement.levels(name)]
        values += [None] * (1 + num_levels - len(values))
        cells[name] = ["" if value is None else format_metric(name, value) for value in values]
    return cells


def set_table(
    title: str, sets: Mapping[str, Measurement], extractor: str = "", note: str = ""
) -> Table:
    """Metrics of sets of images, one row per set; without empty columns.

    Arguments:
        title: Of the table.
        sets: The metrics of each set under its name.
        extractor: Name of the feature extractor.
        note: What the columns do not say.
    """
    columns = [
        key
        for key, metric in METRICS.items()
        if metric.in_tables and any(one.get(key) is not None for one in sets.values())
    ]
    rows = [
        [name, f"{one.num_images:,}", *(format_metric(key, one.get(key)) for key in columns)]
        for name, one in sets.items()
    ]
    titles = {METRICS[key].title(extractor): METRICS[key].explanation for key in columns}
    return Table(title, ["set", "images", *titles], rows, note, meanings=titles)


def sample_table(extractor: str, metrics: SampleMetrics) -> Table:
    """Samples, reconstructions and validation images against training images."""
    sets = {"validation images": metrics.validation, "reconstructions": metrics.reconstructions}
    for fraction, one in metrics.by_fraction.items():
        is_all = fraction == "1"
        sets["samples" if is_all else f"best {100 * float(fraction):g} % of samples"] = one
    for temperature, one in metrics.by_temperature.items():
        sets[f"samples at temperature {temperature}"] = one
    distance = metrics.reconstructions.get("fid_against_originals")
    note = (
        "FID* is the distance to reconstructions instead of training images. "
        f"FID-{extractor} of reconstructions to their originals: "
        f"{format_metric('fid_against_originals', distance)}."
    )
    if any(fraction != "1" for fraction in metrics.by_fraction):
        note += f" The best samples are selected by {metrics.selector}."
    title = f"{metrics.num_samples:,} samples; each set against as many training images"
    return set_table(title, sets, extractor, note)


def accuracy_table(score: AccuracyScore, max_classes: int) -> Table:
    """The accuracy of each classifier on each set of images, and on the real images per class."""
    classifiers = score.trained_on.values()
    labels = evenly_spaced(len(score.class_names), max_classes).tolist()
    rows = [
        [name, *(percent(tested[name].top1) for tested in classifiers)]
        for name in next(iter(classifiers))
    ] + [
        [
            f"real: {score.class_names[label]}",
            *(percent(tested["real"].by_class[label]) for tested in classifiers),
        ]
        for label in labels
    ]
    training = score.training
    note = (
        f"A ResNet-{training.depth} is trained on {score.num_images:,} images of each kind, "
        f"{training.steps:,} steps of {training.batch} images, and tested on validation images."
    )
    header = ["tested on", *(f"trained on {name}" for name in score.trained_on)]
    return Table("Classification accuracy score", header, rows, note)


def two_sample_table(tests: TwoSampleTests) -> Table:
    """How well a classifier tells each set from real images."""
    rows = [
        [name, f"{tests.num_images[name]:,}", format_metric("auroc", value)]
        for name, value in tests.auroc.items()
    ]
    note = (
        f"A ResNet-{tests.training.depth} learns to tell half of the images of each set from as "
        "many real ones, and is tested on the other half. 0.5 is chance; 1 means that it is "
        "always right."
    )
    auroc = METRICS["auroc"]
    header, meanings = ["set", "images", auroc.title()], {auroc.title(): auroc.explanation}
    return Table("Two-sample tests", header, rows, note, meanings=meanings)


def agreement_table(agreement: ClassAgreement) -> Table:
    """The accuracy of a classifier on each set of images."""
    rows = [
        ["validation images", percent(agreement.on_images)],
        ["reconstructions", percent(agreement.on_reconstructions)],
        [f"{agreement.num_samples:,} samples", percent(agreement.on_samples)],
    ]
    title = "Classes recognised by a classifier that is trained on the training images"
    note = "The class of a sample is correct if it is the requested one."
    return Table(title, ["set", "correct"], rows, note)


def detection_table(folder: str, result: OutOfDistribution) -> Table:
    """How well each score separates validation images from those of a folder."""
    rows = [
        [name, format_metric("auroc", one.auroc), f"{one.validation:.5g}", f"{one.outside:.5g}"]
        for name, one in result.scores.items()
    ]
    title = (
        f"Out-of-distribution detection: {result.num_validation:,} validation images against "
        f"{result.num_outside:,} images of {folder}"
    )
    note = (
        "AUROC is the area under the ROC curve: 1 separates the two sets perfectly, 0.5 is "
        "chance. Likelihoods are known to prefer smooth images of any kind."
    )
    header = ["score", METRICS["auroc"].name, "mean of validation images", f"mean of {folder}"]
    return Table(title, header, rows, note)


def percent(share: float | None) -> str:
    """A share in percent."""
    return format_metric("accuracy", share)
