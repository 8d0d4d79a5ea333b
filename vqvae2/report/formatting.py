"""Numbers and settings as the report and the command line print them."""

from collections.abc import Mapping

from markupsafe import Markup, escape

from vqvae2.metrics.describe import DASH, METRICS, format_metric
from vqvae2.metrics.results import ClassAgreement, Measurement, SampleMetrics
from vqvae2.sampling import SamplingConfig


def format_number(value: object, digits: int = 4) -> str:
    """A number with a few significant digits: 0.004812, 22.35, 12,345; other values as text."""
    if value is None:
        return DASH
    if isinstance(value, list | tuple):
        return ", ".join(format_number(item, digits) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == value and abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    if 10**digits <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def with_code(text: str) -> Markup:
    """A sentence as HTML, with `commands` in a fixed-width font."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def describe_sampling(config: SamplingConfig) -> str:
    """How codes are drawn, in words."""
    parts = [f"temperature {config.temperature:g}"]
    if config.top_k is not None:
        parts.append(f"top-k {config.top_k}")
    if config.top_p != 1:
        parts.append(f"top-p {config.top_p:g}")
    if len(parts) == 1 and config.temperature:
        parts.append("all codes")
    return ", ".join(parts)


def percent(share: float | None) -> str:
    """A share in percent."""
    return format_metric("accuracy", share)


def distance_table(
    extractor: str, sets: Mapping[str, Measurement]
) -> tuple[list[str], list[list[str]]]:
    """Metrics of sets of images: the header, and one row per set; without empty columns.

    Arguments:
        extractor: Name of the feature extractor.
        sets: The metrics of each set under its title.
    """
    columns = [
        key
        for key, metric in METRICS.items()
        if metric.in_tables and any(one.get(key) is not None for one in sets.values())
    ]
    # The number of images matters only where it differs.
    counts = {one.num_images for one in sets.values()}
    rows = [
        [
            title,
            *([f"{one.num_images:,}"] if len(counts) > 1 else []),
            *("" if one.get(key) is None else format_metric(key, one[key]) for key in columns),
        ]
        for title, one in sets.items()
    ]
    heads = ["set", *(["images"] if len(counts) > 1 else [])]
    return [*heads, *(METRICS[key].title(extractor) for key in columns)], rows


def measured_sets(metrics: SampleMetrics) -> dict[str, Measurement]:
    """The sets that an extractor has measured, by their titles, in the order of a table."""
    fractions = {
        "samples" if fraction == "1" else f"best {100 * float(fraction):g} % of samples": one
        for fraction, one in metrics.by_fraction.items()
    }
    temperatures = {
        f"samples at temperature {temperature}": one
        for temperature, one in metrics.by_temperature.items()
    }
    return {
        "validation images": metrics.validation,
        "reconstructions": metrics.reconstructions,
        **fractions,
        **temperatures,
    }


def agreement_rows(agreement: ClassAgreement) -> list[list[str]]:
    """The accuracy of a classifier on each set of images."""
    return [
        ["validation images", percent(agreement.on_images)],
        ["reconstructions", percent(agreement.on_reconstructions)],
        [f"{agreement.num_samples:,} samples", percent(agreement.on_samples)],
    ]


def sample_notes(extractor: str, metrics: SampleMetrics) -> str:
    """What the columns of a table of samples do not say."""
    distance = metrics.reconstructions.get("fid_against_originals")
    sentences = [
        "FID* is the distance to reconstructions instead of training images.",
        f"FID-{extractor} of reconstructions to their originals: "
        f"{format_metric('fid_against_originals', distance)}.",
    ]
    if any(fraction != "1" for fraction in metrics.by_fraction):
        sentences.append(f"The best samples are selected by {metrics.selector}.")
    return " ".join(sentences)
