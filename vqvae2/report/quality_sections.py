"""The section of the report about the quality of samples (Sec. 3.3, 4.2 and 4.3)."""

from collections.abc import Mapping

from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.report import plots
from vqvae2.report.blocks import Block, Curve, Plots, Text, WideImage, embedded_file
from vqvae2.report.source import ReportSource
from vqvae2.report.tables import (
    accuracy_table,
    agreement_table,
    detection_table,
    sample_table,
    two_sample_table,
)

MAX_CLASSES = 20  # rows of the accuracy score
SHARES = ("precision", "recall", "accuracy_score")


def quality(source: ReportSource) -> list[Block]:
    """The quality of samples by every instrument that was used."""
    metrics = source.folder.read_metrics()
    blocks: list[Block] = []
    for extractor, samples in metrics.samples.items():
        blocks += distances(source, extractor, samples)
    if metrics.accuracy_score:
        blocks.append(accuracy_table(metrics.accuracy_score, MAX_CLASSES))
    if metrics.class_agreement:
        blocks.append(agreement_table(metrics.class_agreement))
    if metrics.two_sample:
        blocks.append(two_sample_table(metrics.two_sample))
    blocks += [detection_table(*result) for result in metrics.out_of_distribution.items()]
    if not blocks:
        raise ValueError(f"Samples were not measured yet. {source.advice_to_measure()}")
    models = fingerprints(source.pipeline)
    if any(origin.models != models for _, _, origin in metrics.sample_provenance()):
        text = (
            "Models were trained after some of these evaluations. To measure again with "
            f"--samples, --cas, --two-sample or --outside: "
            f"{source.command('evaluate --samples 10000')}."
        )
        blocks.insert(0, Text(text, "note"))
    return blocks


def distances(source: ReportSource, extractor: str, metrics: SampleMetrics) -> list[Block]:
    """Samples, reconstructions and validation images against training images."""
    blocks: list[Block] = [
        Text(
            f"{extractor} compares each set with training images. Values of another network or "
            "another number of images are not comparable. Precision is the share of the set that "
            "is close to training images, recall the share of training images that are close to "
            "the set."
        ),
        sample_table(extractor, metrics),
    ]
    curves = [*rejection_curves(extractor, metrics.by_fraction), *tradeoff_curves(metrics)]
    if curves:
        blocks.append(Plots(curves))
    neighbours = source.folder.neighbours(extractor)
    if neighbours.is_file():
        text = f"left a sample, then the training images that {extractor} finds nearest to it"
        image = embedded_file("png", neighbours.read_bytes(), text)
        blocks += [Text(f"Memorisation: {text}."), WideImage(image)]
    return blocks


def rejection_curves(extractor: str, by_fraction: Mapping[str, Measurement]) -> list[Curve]:
    """Metrics by the selected fraction of samples: two distances, and shares in one plot."""
    if len(by_fraction) < 2:
        return []
    curves = []
    for name in ("fid", "inception_score"):
        title = METRICS[name].title(extractor)
        curves.append(Curve(title, plots.rejection_plot(by_fraction, [name], title)))
    shares = [name for name in SHARES if all(name in one.values for one in by_fraction.values())]
    plot = plots.rejection_plot(by_fraction, shares, "share")
    return [*curves, Curve("Quality and diversity", plot)]


def tradeoff_curves(metrics: SampleMetrics) -> list[Curve]:
    """Precision against recall, by rejection and by temperature."""
    methods = {"rejection": metrics.by_fraction, "temperature": metrics.by_temperature}
    if sum(map(len, methods.values())) < 2:
        return []
    points = {
        method: {name: (one["recall"], one["precision"]) for name, one in by_setting.items()}
        for method, by_setting in methods.items()
    }
    return [Curve("Rejection and temperature", plots.tradeoff_plot(points))]
