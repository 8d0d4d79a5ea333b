"""Plots as inline SVG, with the colours and the font of the page that contains them.

Matplotlib has no CSS variables: each colour is drawn as a placeholder that is replaced afterwards.
So a page in dark mode shows the same plot in other colours.

Legend: `K` codes.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    StrMethodFormatter,
)

from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import Measurement
from vqvae2.metrics.usage import CodeUsage

LogLine = dict[str, float]
"""One line of a log: "step" and metrics."""

INK, GRID, MUTED = "#0a0b0c", "#0b0c0d", "#0c0d0e"
LEVELS = ("#0d0e0f", "#0e0f10", "#0f1011", "#101112")
VARIABLES = {
    INK: "var(--soft)",
    GRID: "var(--line)",
    MUTED: "var(--muted)",
    **{colour: f"var(--level-{number})" for number, colour in enumerate(LEVELS)},
}

SIZE = (4.3, 2.9)  # inches; about as wide as a phone, where the text keeps its size
MARGINS = {"left": 0.155, "right": 0.975, "bottom": 0.175, "top": 0.955}
LINE_OF_LEGEND = 0.085  # of the height
TEXT, SMALL_TEXT = 10.5, 9.5  # points
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "vqvae2", "font.size": TEXT}


def codebook_plot(usage: CodeUsage, level: int) -> Markup:
    """The frequency of each code, most frequent first, and that of equally likely codes."""
    counts = usage.counts.sort(descending=True).values.double()
    share = (100 * counts / counts.sum().clamp_min(1)).tolist()
    total, used = len(share), usage.used
    figure, axes = canvas("codes, most frequent first", "% of all codes")
    edges = [position + 0.5 for position in range(total + 1)]
    lowest = min([100 / total, *share[:used]]) / 2
    colour = level_colour(level)
    axes.stairs(
        share[:used], edges[: used + 1], baseline=lowest, fill=True, color=colour, alpha=0.3
    )
    axes.stairs(share[:used], edges[: used + 1], baseline=None, color=colour, linewidth=1.5)
    reference_line(axes, 100 / total, "if all were equally likely")
    if used < total:
        shade(axes, used + 0.5, total + 0.5)
    axes.set_xlim(0.5, total + 0.5)
    logarithmic(axes, lowest)
    return svg(figure)


def distortion_plot(
    train: Sequence[LogLine],
    validation: Sequence[LogLine],
    num_levels: int,
    continuous_steps: int,
) -> Markup:
    """Error by step: of training images, of validation images, and of each level alone."""
    figure, axes = canvas("step", "MSE (images in [0, 1])")
    if continuous_steps and (train or validation):
        shade(axes, 0, continuous_steps)
    draw(axes, logged(train, "mse"), "training", MUTED, "-")
    for level in range(num_levels if num_levels > 1 else 0):
        points = logged(validation, f"mse_level_alone.{level}")
        draw(axes, points, f"level {level} alone", level_colour(level), "--")
    draw(axes, logged(validation, "mse"), "validation", INK)
    axes.set_xlim(left=0)
    logarithmic(axes)
    legend(axes)
    return svg(figure)


def usage_plot(validation: Sequence[LogLine], num_codes: Sequence[int]) -> Markup:
    """The perplexity of each level's codes by step, on validation images."""
    figure, axes = canvas("step", "perplexity of the codes")
    for level in range(len(num_codes)):
        points = logged(validation, f"perplexity.{level}")
        draw(axes, points, f"level {level}", level_colour(level))
    for height in sorted(set(num_codes)):
        reference_line(axes, height, f"K = {height}", "left")
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1.16 * max(num_codes))
    legend(axes)
    return svg(figure)


def log_plot(train: Sequence[LogLine], validation: Sequence[LogLine], name: str) -> Markup:
    """A metric that a stage logs in training, by step."""
    figure, axes = canvas("step", name.replace("_", " "))
    draw(axes, logged(train, name), "training", MUTED, "-")
    draw(axes, logged(validation, name), "validation", level_colour(0))
    axes.set_xlim(left=0)
    legend(axes)
    return svg(figure)


def prior_plot(
    train: Sequence[LogLine], validation: Sequence[LogLine], level: int, num_codes: int
) -> Markup:
    """Nats per code of a prior by step, and ln K, the nats of a uniform prior, if in range."""
    figure, axes = canvas("step", "nats per code")
    draw(axes, logged(train, "nats_per_code"), "training", MUTED, "-")
    draw(axes, logged(validation, "nats_per_code"), "validation", level_colour(level))
    nats = [line["nats_per_code"] for line in [*train, *validation]]
    uniform = math.log(num_codes)
    if nats and uniform <= max(nats) + 0.5 * (max(nats) - min(nats)):
        reference_line(axes, uniform, f"ln K = {uniform:.2f}")
        highest = max(uniform, *nats)
        axes.set_ylim(top=highest + 0.12 * (highest - min(nats)))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    legend(axes)
    return svg(figure)


def rejection_plot(
    by_fraction: Mapping[str, Measurement], names: Sequence[str], label: str
) -> Markup:
    """Metrics by the selected fraction of samples; `label` names the vertical axis."""
    figure, axes = canvas("selected fraction of samples", label)
    fractions, highest = [float(fraction) for fraction in by_fraction], 0.0
    for number, name in enumerate(names):
        values = [measurement[name] for measurement in by_fraction.values()]
        highest = max(highest, *values)
        points = list(zip(fractions, values, strict=True))
        draw(axes, points, METRICS[name].name, level_colour(number))
    axes.set_ylim(0, 1.12 * highest)
    # From all samples, on the left, to the smallest fraction.
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(FixedLocator(fractions))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    if len(names) > 1:
        legend(axes)
    return svg(figure)


def tradeoff_plot(methods: Mapping[str, Mapping[str, tuple[float, float]]]) -> Markup:
    """Precision against recall, one line per method that trades one for the other.

    Arguments:
        methods: By name of the method, (recall, precision) by setting.
    """
    figure, axes = canvas("recall: share of the training images covered", "precision")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    for number, (name, points) in enumerate(methods.items()):
        draw(axes, list(points.values()), name, level_colour(number))
        for setting, point in points.items():
            axes.annotate(
                setting, point, (4, 3), textcoords="offset points", color=INK, size=SMALL_TEXT
            )
    axes.margins(0.12)
    legend(axes)
    return svg(figure)


def level_colour(level: int) -> str:
    """The same colour for a level everywhere in the report."""
    return LEVELS[level % len(LEVELS)]


def canvas(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot with labels of its axes."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE)
        axes = figure.add_subplot()
        figure.subplots_adjust(**MARGINS)
        # Names of networks come from users and may contain a dollar sign.
        axes.set_xlabel(x, color=INK, parse_math=False)
        axes.set_ylabel(y, color=INK, parse_math=False)
        axes.tick_params(colors=INK, length=0, pad=4, which="both")
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    return figure, axes


def logged(lines: Sequence[LogLine], name: str) -> list[tuple[float, float]]:
    """(step, value) of a metric, from the log lines that contain it."""
    return [(line["step"], line[name]) for line in lines if name in line]


def draw(
    axes: Axes, points: Sequence[tuple[float, float]], label: str, colour: str, style: str = "-o"
) -> None:
    """A curve through points, in a style of matplotlib; without points there is none."""
    if points:
        x, y = zip(*points, strict=True)
        width = 1.6 if style == "-o" else 1.1
        axes.plot(x, y, style, label=label, color=colour, linewidth=width, markersize=3)


def shade(axes: Axes, left: float, right: float) -> None:
    """Shades a range of the horizontal axis."""
    axes.axvspan(left, right, color=GRID, alpha=0.45, linewidth=0)


def reference_line(axes: Axes, height: float, text: str, side: str = "right") -> None:
    """A dashed line across the plot, with a text just above it."""
    axes.axhline(height, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.annotate(
        text, (0.99 if side == "right" else 0.01, height), (0, 2), ha=side, va="bottom",
        xycoords=axes.get_yaxis_transform(), textcoords="offset points", color=INK,
        size=SMALL_TEXT,
    )  # fmt: skip


def logarithmic(axes: Axes, bottom: float | None = None) -> None:
    """A logarithmic vertical axis with plain numbers at 1, 2 and 5."""
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes) -> None:
    """A legend above the plot, where it hides no curve."""
    if count := len(axes.get_legend_handles_labels()[0]):
        columns = 3 if count in (3, 5, 6) else 2
        lines = -(-count // columns)
        axes.figure.subplots_adjust(top=MARGINS["top"] - LINE_OF_LEGEND * lines)
        axes.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=columns, frameon=False,
            labelcolor=INK, handlelength=1.3, handletextpad=0.5, columnspacing=1.3,
            borderaxespad=0, borderpad=0.2, labelspacing=0.3, fontsize=SMALL_TEXT,
        )  # fmt: skip


def svg(figure: Figure) -> Markup:
    """An <svg> element without file header, addresses, and ids that other plots repeat.

    Matplotlib escapes the texts of users in it.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A <style> inside an inline <svg> would apply to the complete page.
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"|(?<=<g) id="[^"]*"|font-family: [^;]*; ', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return Markup(text)
