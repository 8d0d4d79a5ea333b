"""The sections of the report that consist of numbers: all metrics, the data, the config."""

import json

from vqvae2.configuration import to_dict
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import Measurement
from vqvae2.report.blocks import Block, Facts, FoldedText, NameList, Table, Text
from vqvae2.report.formatting import format_number
from vqvae2.report.source import ReportSource, Unavailable

MAX_SKIPPED = 500  # names of images that could not be read


def all_metrics(source: ReportSource) -> list[Block]:
    """All metrics of reconstructions and priors; those of samples have their own section."""
    metrics = source.metrics
    outdated = source.outdated_metrics()
    blocks: list[Block] = [Text(outdated, "note")] if outdated else []
    if metrics.provenance:
        origin = to_dict(metrics.provenance)
        versions = origin.pop("versions")
        assert isinstance(versions, dict)
        facts = {name.replace("_", " "): value for name, value in (origin | versions).items()}
        blocks.append(Facts({name: format_fact(value) for name, value in facts.items()}))
    for title, measurement in (
        ("Reconstruction", metrics.reconstruction),
        ("Priors", metrics.priors),
    ):
        if measurement:
            blocks.append(metric_table(title, measurement))
    return blocks


def format_fact(value: object) -> str:
    """A fact as text: seeds and fingerprints are not grouped in thousands."""
    return value if isinstance(value, str) else format_number(value)


def metric_table(title: str, measurement: Measurement) -> Table:
    """The metrics of one set of images: a value over all levels, or one value per level."""
    num_levels = max((len(values) for values in measurement.per_level.values()), default=0)
    num_images = format_number(measurement.num_images)
    rows = [["num_images", "number of validation images", num_images, *[""] * num_levels]]
    for name in dict.fromkeys([*measurement.values, *measurement.per_level]):
        value = format_number(measurement.get(name)) if name in measurement.values else ""
        levels = [format_number(value) for value in measurement.levels(name)]
        padding = [""] * (num_levels - len(levels))
        rows.append([name, METRICS[name].meaning, value, *levels, *padding])
    header = ["", "", "all", *(f"level {level}" for level in range(num_levels))]
    return Table(header, rows, title, has_meanings=True)


def data(source: ReportSource) -> list[Block]:
    """The images of the run, as data.json describes them."""
    summary = source.folder.read_data()
    if summary is None:
        raise Unavailable(f"No images were read yet: {source.command('train --run')}.")
    train, validation = format_number(summary.num_train), format_number(summary.num_validation)
    origin = source.config.data.source
    blocks: list[Block] = [
        Text(f"{train} training images and {validation} validation images from {origin}.")
    ]
    if summary.class_names:
        blocks.append(NameList(summary.class_names))
    skipped = summary.skipped
    if not skipped:
        return [*blocks, Text("All images can be used.")]
    title = f"{format_number(len(skipped))} image{'s' * (len(skipped) > 1)} cannot be used"
    blocks.append(NameList(skipped[:MAX_SKIPPED], title))
    if len(skipped) > MAX_SKIPPED:
        more = format_number(len(skipped) - MAX_SKIPPED)
        blocks.append(Text(f"The names of {more} more are in data.json."))
    return blocks


def config(source: ReportSource) -> list[Block]:
    """The resolved config, as JSON."""
    text = json.dumps(to_dict(source.config), indent=2, ensure_ascii=False)
    return [FoldedText("The resolved config of this run", text)]
