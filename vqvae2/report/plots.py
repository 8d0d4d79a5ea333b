"""Plots as inline SVG: they take their colours and font from the page around them.

Matplotlib knows no CSS variables, so each colour is drawn as a stand-in that is replaced
afterwards; a page in dark mode then shows the same plot in its own colours.

Legend: `K` codes.
"""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from vqvae2.metrics.usage import CodeUsage

Look = dict[str, float]
"""A line of a log: "step" and figures."""

INK, GRID, MUTED = "#0a0b0c", "#0b0c0d", "#0c0d0e"
LEVELS = ("#0d0e0f", "#0e0f10", "#0f1011", "#101112")
VARIABLES = {
    INK: "var(--soft)",
    GRID: "var(--line)",
    MUTED: "var(--muted)",
    **{colour: f"var(--level-{number})" for number, colour in enumerate(LEVELS)},
}

SIZE = (4.9, 2.7)  # inches
MARGINS = {"left": 0.115, "right": 0.975, "bottom": 0.16, "top": 0.955}
SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "vqvae2", "font.size": 8.0}


def codebook_plot(usage: CodeUsage, level: int) -> str:
    """How often each code occurs, most frequent first, beside codes that are all as likely."""
    counts = usage.counts.sort(descending=True).values.double()
    share = (100 * counts / counts.sum().clamp_min(1)).tolist()
    total, used = len(share), usage.used
    figure, axes = canvas("codes, most frequent first", "% of all codes")
    edges = [place + 0.5 for place in range(total + 1)]
    lowest = min([100 / total, *share[:used]]) / 2
    colour = level_colour(level)
    axes.stairs(
        share[:used], edges[: used + 1], baseline=lowest, fill=True, color=colour, alpha=0.3
    )
    axes.stairs(share[:used], edges[: used + 1], baseline=None, color=colour, linewidth=1.5)
    axes.axhline(100 / total, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    put_note(axes, 0.99, 100 / total, "if all were as likely")
    if used < total:
        axes.axvspan(used + 0.5, total + 0.5, color=GRID, alpha=0.45, linewidth=0)
    axes.set_xlim(0.5, total + 0.5)
    logarithmic(axes, lowest)
    return svg(figure)


def distortion_plot(
    train: Sequence[Look], validation: Sequence[Look], num_levels: int, continuous_steps: int
) -> str:
    """The error of stage 1 by step: in training, held out, and held out of each level alone."""
    figure, axes = canvas("step", "MSE, images in [0, 1]")
    if continuous_steps and (train or validation):
        axes.axvspan(0, continuous_steps, color=GRID, alpha=0.45, linewidth=0)
    draw(axes, train, "mse", "training", color=MUTED, linewidth=1)
    if num_levels > 1:
        for level in range(num_levels):
            style = {"color": level_colour(level), "linestyle": (0, (2, 1.5)), "linewidth": 1.3}
            draw(axes, validation, f"mse_level_alone.{level}", f"level {level} alone", **style)
    draw(axes, validation, "mse", "held out", color=INK, marker="o", markersize=3, linewidth=1.5)
    logarithmic(axes)
    legend(axes)
    return svg(figure)


def usage_plot(validation: Sequence[Look], num_codes: Sequence[int]) -> str:
    """The perplexity of each level's codes by step, on validation images."""
    figure, axes = canvas("step", "perplexity of the codes")
    for level in range(len(num_codes)):
        style = {"color": level_colour(level), "marker": "o", "markersize": 3, "linewidth": 1.5}
        draw(axes, validation, f"perplexity.{level}", f"level {level}", **style)
    for number in set(num_codes):
        axes.axhline(number, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        put_note(axes, 0.01, number, f"K = {number}", side="left")
    axes.set_ylim(0, 1.16 * max(num_codes))
    legend(axes, "lower right")
    return svg(figure)


def prior_plot(
    train: Sequence[Look], validation: Sequence[Look], level: int, num_codes: int
) -> str:
    """Nats per code of a prior by step, and ln K, which an ignorant prior needs, if in range."""
    figure, axes = canvas("step", "nats per code")
    draw(axes, train, "nats_per_code", "training", color=MUTED, linewidth=1)
    style = {"color": level_colour(level), "marker": "o", "markersize": 3, "linewidth": 1.7}
    draw(axes, validation, "nats_per_code", "held out", **style)
    nats = [look["nats_per_code"] for look in [*train, *validation]]
    uniform = math.log(num_codes)
    if nats and uniform <= max(nats) + 0.5 * (max(nats) - min(nats)):
        axes.axhline(uniform, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        put_note(axes, 0.99, uniform, f"ln K = {uniform:.2f}")
        axes.set_ylim(top=max(uniform, *nats) + 0.12 * (uniform - min(nats)))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    legend(axes, "center right")
    return svg(figure)


def sweep_plot(
    fractions: Sequence[float], figures: Mapping[str, Sequence[float]], height: str
) -> str:
    """Figures by the kept fraction of samples, a line each; `height` names the axis."""
    figure, axes = canvas("kept fraction of samples", height)
    for number, (name, values) in enumerate(figures.items()):
        axes.plot(
            fractions, values, label=name, color=level_colour(number), marker="o", markersize=4,
            linewidth=1.7,
        )  # fmt: skip
    axes.set_ylim(0, 1.12 * max(max(values) for values in figures.values()))
    share_axis(axes, fractions)
    if len(figures) > 1:
        legend(axes, "best")
    return svg(figure)


def tradeoff_plot(ways: Mapping[str, tuple[Sequence[str], Sequence[tuple[float, float]]]]) -> str:
    """Precision against recall, a line for each way to give up one for the other.

    Arguments:
        ways: a name, the setting of each point, and (recall, precision) of each.
    """
    figure, axes = canvas("recall: how much of the images is covered", "precision")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for number, (name, (settings, points)) in enumerate(ways.items()):
        if not points:
            continue
        recall, precision = zip(*points, strict=True)
        colour = level_colour(number)
        axes.plot(recall, precision, label=name, color=colour, marker="o", markersize=4)
        for setting, point in zip(settings, points, strict=True):
            axes.annotate(setting, point, (4, 3), textcoords="offset points", color=INK, size=7.5)
    axes.margins(0.12)
    legend(axes, "best")
    return svg(figure)


def share_axis(axes: Axes, fractions: Sequence[float]) -> None:
    """All samples on the left, the best few on the right, each halving a step."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.xaxis.set_major_locator(FixedLocator(list(fractions)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())


def level_colour(level: int) -> str:
    """The same colour for a level everywhere in the report."""
    return LEVELS[level % len(LEVELS)]


def canvas(x: str, y: str) -> tuple[Figure, Axes]:
    """An empty plot with names for its axes."""
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=SIZE)
        axes = figure.add_subplot()
        figure.subplots_adjust(**MARGINS)
        # Names of networks are users' words, no formulas.
        axes.set_xlabel(x, color=INK, parse_math=False)
        axes.set_ylabel(y, color=INK, parse_math=False)
        axes.tick_params(colors=INK, length=0, pad=4, which="both")
    axes.patch.set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    return figure, axes


def draw(axes: Axes, looks: Sequence[Look], name: str, label: str, **style: Any) -> None:
    """A line through the looks that have the figure `name`."""
    points = [(look["step"], look[name]) for look in looks if name in look]
    if points:
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, label=label, solid_capstyle="round", **style)
        axes.set_xlim(left=0)


def put_note(axes: Axes, x: float, y: float, text: str, side: str = "right") -> None:
    """A few words just above the height `y`; `x` runs from 0 to 1 across the plot."""
    across = axes.get_yaxis_transform()
    axes.annotate(
        text, (x, y), (0, 2), xycoords=across, textcoords="offset points", ha=side, va="bottom",
        color=INK, size=7.5,
    )  # fmt: skip


def logarithmic(axes: Axes, bottom: float | None = None) -> None:
    """A logarithmic height with plain numbers at 1, 2 and 5."""
    axes.set_yscale("log")
    axes.set_ylim(bottom=bottom)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def thousands(value: float, _: int) -> str:
    """Steps as 500, 10k, 2.2M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * size or (size == 1e6 and abs(value) >= size):
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def legend(axes: Axes, where: str = "upper right") -> None:
    """What the lines are, without a frame."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc=where, frameon=False, labelcolor=INK, handlelength=1.6, borderaxespad=0.2,
            fontsize=7.5,
        )  # fmt: skip


def svg(figure: Figure) -> str:
    """An <svg> element: no file header, no addresses, no ids that another plot may have too."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A <style> inside an inline <svg> would hold for the whole page.
    text = re.sub(r"<style.*?</style>|<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"|(?<=<g) id="[^"]*"|font-family: [^;]*; ', "", text)
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text
