"""How long work looks in a terminal, and how it stops."""

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from vqvae2.messages import counted, duration, printable
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import (
    AccuracyScore,
    Measurement,
    OutOfDistribution,
    RunMetrics,
    SampleMetrics,
)
from vqvae2.report.formatting import about_quality, distance_table, percent, quality_sets
from vqvae2.training.session import Stopped

if TYPE_CHECKING:
    from vqvae2.training.session import Event


class PlainConsole(Console):
    """Shows names of files and classes as they are, but for characters that steer a terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Prints; texts are made visible first."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


# Lines are not cut when piped.
console = PlainConsole(highlight=False, markup=False, soft_wrap=True)
errors = PlainConsole(stderr=True, highlight=False, markup=False, soft_wrap=True)

SHOWN = ("mse", "nats_per_code", "share_used.0", "share_used.1", "share_used.2")
"""Validation figures worth a line while training."""

QUIET_SECONDS = 30.0
"""Between two lines of progress where there is no terminal to draw a bar in."""


class Stopper:
    """Turns Ctrl-C and SIGTERM into a question that training asks after every step.

    The first asks to save and stop; a second Ctrl-C stops at once.

    Arguments:
        again: the command that goes on.
    """

    def __init__(self, again: str) -> None:
        self.asked, self.again = False, again
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        """Whether someone asked."""
        return self.asked

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if isinstance(value, Stopped):
            raise Stopped(f"Stopped and saved. To go on: {self.again}") from None

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        errors.print("Stopping after this step and saving; once more stops at once.")


class Monitor:
    """A bar a stage with speed and time left; validation figures as lines above it.

    Where there is no terminal, a line now and then instead of the bars.
    """

    def __init__(self, progress: Progress, shown: bool) -> None:
        self.progress, self.shown = progress, shown
        self.bars: dict[str, TaskID] = {}
        self.begun: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.learnt: set[str] = set()
        self.since: dict[str, tuple[float, int]] = {}
        self.done: dict[str, int] = {}
        self._said = self._last = time.monotonic()

    def show(self, event: "Event") -> None:
        """Shows one event of a job."""
        now = time.monotonic()
        # Its first step, which may have been compiled before, is a stage's too.
        self.begun.setdefault(event.stage, self._last)
        self._last = now
        self.seconds[event.stage] = now - self.begun[event.stage]
        if event.stage != "codes":
            self.learnt.add(event.stage)
        if event.text:
            self._print(event.text, style="yellow")
        if event.split == "validation" and event.metrics:
            self._print(self._line(event))
        name = f"codes {event.split}" if event.stage == "codes" else event.stage
        if event.total:
            self.step(
                name, event.done, event.total, event.examples_per_second, event.peak_fraction
            )

    def track(self, text: str, done: int, total: int) -> None:
        """Progress of reading or drawing images, as `open_images` tells it."""
        self._last = time.monotonic()
        self.step(text, done, total, 0.0)

    def step(self, name: str, done: int, total: int, rate: float, share: float = 0.0) -> None:
        """Moves the bar `name`."""
        speed, now = f"{rate:,.0f} images/s" if rate else "", time.monotonic()
        speed += f", {share:.0%} of the peak" * (share > 0)
        if name not in self.done or done < self.done[name]:
            # The first time, or the same work on something else.
            self.since[name] = (now, done)
            if name in self.bars:
                self.progress.reset(self.bars[name])
        self.done[name] = done
        if not self.progress.disable:
            if name not in self.bars:
                self.bars[name] = self.progress.add_task(name, total=total, speed="")
            self.progress.update(self.bars[name], completed=done, total=total)
            if speed:
                self.progress.update(self.bars[name], speed=speed)
        elif time.monotonic() - self._said >= QUIET_SECONDS:
            self._said = now
            begun, first = self.since[name]
            left = ""
            if done > first:
                left = f"{duration((now - begun) * (total - done) / (done - first))} left"
            self._print(
                "  ".join(part for part in (name, f"{done:,}/{total:,}", speed, left) if part)
            )

    def _line(self, event: "Event") -> str:
        spent = duration(self.seconds[event.stage])
        figures = "  ".join(f"{k} {event.metrics[k]:.4g}" for k in SHOWN if k in event.metrics)
        return f"{event.stage}  step {event.done}/{event.total}  {spent}  {figures}"

    def _print(self, text: str, style: str = "") -> None:
        if self.shown:
            self.progress.console.print(text, style=style)


@contextmanager
def monitor(shown: bool = True) -> Iterator[Monitor]:
    """Bars while something long runs; `shown` is False on all but one process."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    bars = shown and console.is_terminal
    with Progress(*columns, console=console, disable=not bars) as progress:
        yield Monitor(progress, shown)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table."""
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(map(printable, columns)):
        view.add_column(column, no_wrap=number == 0)
    for row in rows:
        view.add_row(*map(printable, row))
    console.print(title)
    console.print(view)


def show_figures(metrics: RunMetrics) -> None:
    """The validation metrics of a run as a table, one row per level."""
    measured, priors = metrics.reconstruction, metrics.priors or Measurement(0)
    if measured is None:
        show_pixel_figures(metrics)
        return
    rows = [
        [
            str(level),
            f"{level_cell(measured, 'codes_used', level)} "
            f"({level_cell(measured, 'share_used', level)})",
            *(level_cell(measured, name, level) for name in ("perplexity", "mse_level_alone")),
            *(
                level_cell(priors, name, level)
                for name in ("validation_nats_per_code", "gap_nats_per_code")
            ),
        ]
        for level in range(len(measured.levels("codes_used")))
    ]
    title = f"held out, {counted(measured.num_images, 'image')}"
    title += f": MSE {format_metric('mse', measured.get('mse'))}"
    title += f", PSNR {format_metric('psnr_db', measured.get('psnr_db'))} dB"
    for name in ("ssim", "ms_ssim"):
        value = measured.get(name)
        title += "" if value is None else f", {METRICS[name].name} {format_metric(name, value)}"
    if (bits := priors.get("validation_bits_per_dim")) is not None:
        shown = format_metric("validation_bits_per_dim", bits)
        title += f", codes {shown} bits per dimension"
    columns = ["level", "codes used", "perplexity", "MSE alone", "nats per code", "gap"]
    table(title, columns, rows)


def level_cell(measurement: Measurement, name: str, level: int) -> str:
    """A metric of one level, "" where it was not measured."""
    values = measurement.levels(name)
    return format_metric(name, values[level]) if level < len(values) else ""


def show_pixel_figures(metrics: RunMetrics) -> None:
    """The validation metrics of a prior on pixels."""
    number = metrics.provenance.validation_images if metrics.provenance else 0
    title = f"held out, {counted(number, 'image')}"
    if metrics.priors is None:
        console.print(f"{title}: the prior is not trained yet")
        return
    name = "validation_bits_per_dim"
    row = [format_metric(name, metrics.priors.get(name))]
    for split in ("validation", "train", "gap"):
        row.append(level_cell(metrics.priors, f"{split}_nats_per_code", 0))
    table(title, ["bits per dimension", "nats per value", "in training", "gap"], [row])


def show_quality(name: str, metrics: SampleMetrics) -> None:
    """The metrics of samples and what they are compared with, by one extractor."""
    head, *rows = distance_table(name, quality_sets(metrics))
    number = metrics.validation.num_images
    table(f"against {number:,} training images, as many each", head, rows)
    console.print(about_quality(name, metrics))


def show_classification(score: AccuracyScore) -> None:
    """The classification accuracy score: by set trained on, by set tested on, by class."""
    trained, training = score.trained_on, score.training
    tested = list(next(iter(trained.values())))
    rows = [
        [name, *(percent(accuracies[title].top1) for title in tested)]
        for name, accuracies in trained.items()
    ]
    title = (
        f"ResNet-{training.depth}, {training.steps:,} steps of {training.batch}, trained "
        f"on {score.num_images:,} images each; Top-1 of validation images"
    )
    table(title, ["trained on", *(f"asked about {name}" for name in tested)], rows)
    by_class = [
        [name, *(percent(accuracies["real"].by_class[n]) for accuracies in trained.values())]
        for n, name in enumerate(score.class_names)
    ]
    table("by class, asked about real images", ["class", *trained], by_class)


def show_detection(outside: str, result: OutOfDistribution) -> None:
    """How well each score tells validation images from others."""
    rows = [
        [
            name,
            format_metric("auroc", score.auroc),
            f"{score.validation:.5g}",
            f"{score.outside:.5g}",
        ]
        for name, score in result.scores.items()
    ]
    title = f"{result.num_validation:,} validation images against {result.num_outside:,}"
    table(f"{title} of {outside}", ["score", "AUROC", "mean held out", "mean outside"], rows)


def show_skipped(reasons: Mapping[str, str]) -> None:
    """Prints the images that cannot be used, with the reason of each."""
    for name, reason in reasons.items():
        console.print(f"skipped {name}: {reason}", style="yellow")
