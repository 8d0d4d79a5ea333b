"""The sections of the report that consist of numbers: all metrics, the data, the config."""

import json

from vqvae2.configuration import to_dict
from vqvae2.messages import counted
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import Measurement
from vqvae2.report.blocks import Block, Facts, Folded, Text
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource
from vqvae2.report.tables import Table, metric_cells

MAX_SKIPPED = 500  # names of images that could not be read


def all_metrics(source: ReportSource) -> list[Block]:
    """All metrics of reconstructions and priors; those of samples have their own section."""
    metrics = source.metrics
    blocks = source.outdated_metrics()
    if origin := metrics.provenance:
        facts = {**to_dict(origin), **origin.versions}
        del facts["versions"]
        names = {name: name.replace("_", " ") for name in facts}
        blocks.append(Facts({names[name]: format_number(facts[name]) for name in facts}))
    measured = {
        "Reconstruction": metrics.reconstruction,
        "Reconstruction by the sharp decoder": metrics.sharp_reconstruction,
        "Priors": metrics.priors,
    }
    return blocks + [
        metric_table(title, measurement, len(source.grids))
        for title, measurement in measured.items()
        if measurement
    ]


def metric_table(title: str, measurement: Measurement, num_levels: int) -> Table:
    """The metrics of one set of images: a value over all levels, or one value per level."""
    num_images = [f"{measurement.num_images:,}", *[""] * num_levels]
    rows = [["num_images", "number of validation images", *num_images]] + [
        [name, METRICS[name].explanation, *cells]
        for name, cells in metric_cells(measurement, num_levels).items()
        if any(cells)  # SSIM over five scales, for instance, is not defined for small images
    ]
    header = ["", "", "all", *(f"level {level}" for level in range(num_levels))]
    return Table(title, header, rows, has_meanings=True)


def data(source: ReportSource) -> list[Block]:
    """The images of the run, as data.json describes them."""
    summary = source.folder.read_data()
    if summary is None:
        raise ValueError(f"No images were read yet: {source.command('train --run')}.")
    facts = Facts(
        {
            "source": source.config.data.source,
            "training images": f"{summary.num_train:,}",
            "validation images": f"{summary.num_validation:,}",
            "classes": ", ".join(summary.class_names) or "none",
        }
    )
    skipped = summary.skipped
    if not skipped:
        return [facts, Text("All images can be used.")]
    names = list(skipped[:MAX_SKIPPED])
    if len(skipped) > MAX_SKIPPED:
        names.append(f"{len(skipped) - MAX_SKIPPED:,} more, which data.json lists")
    return [facts, Folded(f"{counted(len(skipped), 'image')} cannot be used", names)]


def config(source: ReportSource) -> list[Block]:
    """The resolved config, as JSON."""
    text = json.dumps(to_dict(source.config), indent=2, ensure_ascii=False)
    return [Folded("The resolved config of this run", text)]
