"""What commands print: results as tables, progress as bars; and how Ctrl-C stops training."""

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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
from vqvae2.report.formatting import distance_table, measured_sets, percent, sample_notes
from vqvae2.training.session import Stopped

if TYPE_CHECKING:
    from vqvae2.training.session import Event


class PlainConsole(Console):
    """Prints names of files and classes as they are, without characters that steer a terminal."""

    def print(self, *objects: object, **options: Any) -> None:
        """Prints texts and tables."""
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


# Lines are not cut when the output is piped.
console = PlainConsole(highlight=False, markup=False, soft_wrap=True)
errors = PlainConsole(stderr=True, highlight=False, markup=False, soft_wrap=True)

LOGGED_METRICS = {"mse": "MSE", "nats_per_code": "nats per code"}
"""Validation metrics that are printed during training."""

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines of progress where no bar can be drawn."""


class Stopper:
    """Turns Ctrl-C and SIGTERM into a request to stop, which training checks after every step.

    The first signal requests to save and stop; a second Ctrl-C stops at once.

    Arguments:
        command: The command that continues the training.
    """

    def __init__(self, command: str) -> None:
        self.command, self.is_requested = command, False
        self._handlers = ExitStack()

    def __call__(self) -> bool:
        """Whether a stop is requested."""
        return self.is_requested

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous = signal.signal(number, self._request)
            self._handlers.callback(signal.signal, number, previous)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handlers.close()
        if isinstance(error, Stopped):
            raise Stopped(f"Stopped and saved. To continue: {self.command}") from None

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self.is_requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.is_requested = True
        errors.print("Stopping after this step and saving. Press Ctrl-C again to stop at once.")


@dataclass
class Activity:
    """The progress of one activity.

    Arguments:
        bar: Its bar; None where no bars are drawn.
        begin: When it began, in seconds of the monotonic clock.
        first: How much was done then.
        done: How much is done now.
    """

    bar: TaskID | None
    begin: float
    first: int
    done: int

    def seconds_left(self, now: float, total: int) -> float | None:
        """Estimate of the remaining time; None before there is any progress."""
        if self.done == self.first:
            return None
        return (now - self.begin) * (total - self.done) / (self.done - self.first)


class Monitor:
    """Shows progress: one bar per activity, and validation metrics as lines above the bars.

    Where the output is no terminal, prints a line from time to time instead of bars.

    Arguments:
        progress: The bars.
        is_visible: Whether anything is printed.
    """

    def __init__(self, progress: Progress, is_visible: bool) -> None:
        self.progress, self.is_visible = progress, is_visible
        self.seconds: dict[str, float] = {}
        self.has_trained = False
        self._begin: dict[str, float] = {}
        self._activities: dict[str, Activity] = {}
        self._last_line = self._last_event = time.monotonic()

    def show(self, event: "Event") -> None:
        """Shows an event of training."""
        now = time.monotonic()
        # The first step, which may include compilation, belongs to the stage, too.
        self._begin.setdefault(event.stage, self._last_event)
        self._last_event = now
        self.seconds[event.stage] = now - self._begin[event.stage]
        self.has_trained |= bool(event.metrics)
        if event.text:
            self._print(event.text, style="yellow")
        if event.split == "validation" and event.metrics:
            self._print(
                f"{event.stage}  step {event.done}/{event.total}  "
                f"{duration(self.seconds[event.stage])}  {validation_text(event.metrics)}"
            )
        if event.total:
            self.step(event.stage, event.done, event.total, speed_text(event))

    def track(self, name: str, done: int, total: int) -> None:
        """Shows the progress of work on images; `data.images.Progress`."""
        self._last_event = time.monotonic()
        self.step(name, done, total)

    def step(self, name: str, done: int, total: int, speed: str = "") -> None:
        """Moves the bar of an activity."""
        now = time.monotonic()
        activity = self._activities.get(name)
        if activity is None or done < activity.done:  # the same activity on other images
            bar = self._new_bar(name, total, activity)
            activity = self._activities[name] = Activity(bar, now, done, done)
        activity.done = done
        if activity.bar is not None:
            self.progress.update(activity.bar, completed=done, total=total)
            if speed:
                self.progress.update(activity.bar, speed=speed)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            seconds = activity.seconds_left(now, total)
            left = "" if seconds is None else f"{duration(seconds)} left"
            self._print("  ".join(filter(None, (name, f"{done:,}/{total:,}", speed, left))))

    def _new_bar(self, name: str, total: int, previous: Activity | None) -> TaskID | None:
        if self.progress.disable:
            return None
        if previous is not None and previous.bar is not None:
            self.progress.reset(previous.bar)
            return previous.bar
        return self.progress.add_task(name, total=total, speed="")

    def _print(self, text: str, style: str = "") -> None:
        if self.is_visible:
            self.progress.console.print(text, style=style)


@contextmanager
def monitor(is_visible: bool = True) -> Iterator[Monitor]:
    """Shows progress while the block runs; `is_visible` is False on all processes but one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    has_bars = is_visible and console.is_terminal
    with Progress(*columns, console=console, disable=not has_bars) as progress:
        yield Monitor(progress, is_visible)


def speed_text(event: "Event") -> str:
    """The speed of a stage; "" if it is unknown."""
    speed = f"{event.examples_per_second:,.0f} images/s" if event.examples_per_second else ""
    return f"{speed}, {event.peak_fraction:.0%} of peak FLOP/s" if event.peak_fraction else speed


def validation_text(metrics: Mapping[str, float]) -> str:
    """The most important of the validation metrics."""
    parts = [f"{title} {metrics[name]:.4g}" for name, title in LOGGED_METRICS.items()
             if name in metrics]  # fmt: skip
    shares = [
        format_metric("share_used", value)
        for name, value in metrics.items()
        if name.startswith("share_used.")
    ]
    return "  ".join([*parts, f"codes used {', '.join(shares)}"] if shares else parts)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table."""
    view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(map(printable, columns)):
        view.add_column(column, no_wrap=number == 0)
    for row in rows:
        view.add_row(*map(printable, row))
    console.print(title)
    console.print(view)


def show_metrics(metrics: RunMetrics) -> None:
    """The metrics of reconstructions and priors: one row per metric, one column per level."""
    measurements = [m for m in (metrics.reconstruction, metrics.priors) if m]
    num_levels = max((num_columns(m) for m in measurements), default=0)
    rows = [row for m in measurements for row in metric_rows(m, num_levels)]
    num_images = metrics.provenance.validation_images if metrics.provenance else 0
    columns = ["metric", "all", *(f"level {level}" for level in range(num_levels))]
    table(f"Metrics of {counted(num_images, 'validation image')}", columns, rows)


def num_columns(measurement: Measurement) -> int:
    """Number of levels with a value."""
    return max(map(len, measurement.per_level.values()), default=0)


def metric_rows(measurement: Measurement, num_levels: int) -> list[list[str]]:
    """One row per metric: its name, its value over all levels, its value per level."""
    rows = []
    for name in dict.fromkeys([*measurement.values, *measurement.per_level]):
        value = measurement.get(name)
        levels = [format_metric(name, one) for one in measurement.levels(name)]
        if value is not None or levels:
            total = "" if value is None else format_metric(name, value)
            padding = [""] * (num_levels - len(levels))
            rows.append([METRICS[name].title(), total, *levels, *padding])
    return rows


def show_samples(extractor: str, metrics: SampleMetrics) -> None:
    """The quality of samples, reconstructions and validation images by one extractor."""
    title = f"{metrics.num_samples:,} samples; each set against as many training images"
    table(title, *distance_table(extractor, measured_sets(metrics)))
    console.print(sample_notes(extractor, metrics))


def show_accuracy_score(score: AccuracyScore) -> None:
    """The classification accuracy score, over all classes and per class."""
    trained, training = score.trained_on, score.training
    tested = list(next(iter(trained.values())))
    rows = [
        [name, *(percent(accuracies[test].top1) for test in tested)]
        for name, accuracies in trained.items()
    ]
    title = (
        f"Accuracy of a ResNet-{training.depth} on validation images, after {training.steps:,} "
        f"steps of {training.batch} from {score.num_images:,} images"
    )
    table(title, ["trained on", *(f"tested on {name}" for name in tested)], rows)
    by_class = [
        [name, *(percent(accuracies["real"].by_class[n]) for accuracies in trained.values())]
        for n, name in enumerate(score.class_names)
    ]
    columns = ["class", *(f"trained on {name}" for name in trained)]
    table("Accuracy per class, tested on real images", columns, by_class)


def show_out_of_distribution(folder: str, result: OutOfDistribution) -> None:
    """How well each score separates validation images from those of a folder."""
    rows = [
        [name, format_metric("auroc", one.auroc), f"{one.validation:.5g}", f"{one.outside:.5g}"]
        for name, one in result.scores.items()
    ]
    title = f"{result.num_validation:,} validation images against {result.num_outside:,}"
    columns = ["score", METRICS["auroc"].name, "mean of validation", f"mean of {folder}"]
    table(f"{title} of {folder}", columns, rows)


def show_skipped(reasons: Mapping[str, str]) -> None:
    """The images that cannot be used, with the reason of each."""
    for name, reason in reasons.items():
        console.print(f"skipped {name}: {reason}", style="yellow")
