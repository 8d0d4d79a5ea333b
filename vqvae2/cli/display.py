"""What commands print: results as tables, progress as bars; and how Ctrl-C stops training."""

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, TypeVar

from rich import box
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vqvae2.messages import counted, duration, printable
from vqvae2.metrics.describe import METRICS, format_metric
from vqvae2.metrics.results import RunMetrics
from vqvae2.report import tables
from vqvae2.training.session import Event, Stopped

T = TypeVar("T")


class PlainConsole(Console):
    """Prints names of files and classes as they are, without characters that steer a terminal.

    Lines break between words at the width of a terminal; in a pipe or a file they do not break.
    """

    def print(self, *objects: object, **options: Any) -> None:
        """Prints texts and tables."""
        options.setdefault("soft_wrap", not self.is_terminal)
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **options)


console = PlainConsole(highlight=False, markup=False)
errors = PlainConsole(stderr=True, highlight=False, markup=False)

SPACING = 3
"""Columns of the terminal between two columns of a table."""

LOGGED_METRICS = {
    "mse": "MSE",
    "perceptual": "perceptual distance",
    "spectral_distance_db": "spectra, dB",
    "nats_per_code": "nats per code",
}
"""Validation metrics that are printed during training."""

HALF_LIFE, FLAT = 5, 0.005
"""Of the shown loss: logged values after which half is forgotten, and a change that is none."""

SECONDS_BETWEEN_LINES = 30.0
"""Between two lines of progress where no bar can be drawn."""

WIDE = 110
"""Columns of a terminal that has space for long bars, and for the fraction of the peak."""

SECONDS_OF_SILENCE = 2.0
"""After which a terminal shows that something without a bar is going on."""

MAX_SKIPPED = 20
"""Images that cannot be used, of which the reason is printed."""


@contextmanager
def stop_on_signal(command: str) -> Iterator[Callable[[], bool]]:
    """Turns Ctrl-C and SIGTERM into a request to stop, which training checks after every step.

    The first signal requests to save and stop; a second Ctrl-C stops at once.

    Arguments:
        command: The command that continues the training.

    Yields:
        A function that returns whether a stop is requested.
    """
    requests: list[int] = []

    def request(number: int, frame: FrameType | None) -> None:
        if requests and number == signal.SIGINT:
            raise KeyboardInterrupt
        requests.append(number)
        errors.print("Stopping after this step and saving. Press Ctrl-C again to stop at once.")

    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other one may have handlers
        handlers = {n: signal.signal(n, request) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(requests)
    except Stopped:
        raise Stopped(f"Stopped and saved. To continue: {command}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@dataclass
class Activity:
    """The progress of one activity.

    Arguments:
        bar: Its bar.
        begin: When it began, in seconds of the monotonic clock.
        first: How much was done then.
        done: How much is done now.
    """

    bar: TaskID
    begin: float
    first: int
    done: int


class LossTrend:
    """The loss of a stage, averaged over its last logged steps, and whether it falls.

    The average forgets half within `HALF_LIFE` values; the trend compares it with one that forgets
    half within four times as many.
    """

    def __init__(self) -> None:
        self.name, self.fast, self.slow, self.count = "", 0.0, 0.0, 0

    def add(self, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a training step."""
        name = next((name for name in LOGGED_METRICS if name in metrics), "")
        if not name:
            return
        self.name, self.count = name, self.count + 1
        for average, half_life in (("fast", HALF_LIFE), ("slow", 4 * HALF_LIFE)):
            # Of few values, their mean.
            share = max(1 - 0.5 ** (1 / half_life), 1 / self.count)
            before = getattr(self, average)
            setattr(self, average, before + share * (metrics[name] - before))

    def text(self) -> str:
        """Such as `MSE 0.0042, falling`."""
        if not self.name:
            return ""
        change = (self.fast - self.slow) / max(abs(self.slow), 1e-12)
        trend = "falling" if change < -FLAT else "rising" if change > FLAT else "level"
        return f"{LOGGED_METRICS[self.name]} {self.fast:.3g}, {trend}"


class Bars(Progress):
    """Progress bars, and a line of its own for work that has no bar."""

    def __init__(self, *columns: ProgressColumn, console: Console, disable: bool) -> None:
        self.moved = time.monotonic()  # before the first drawing
        super().__init__(*columns, console=console, disable=disable)

    def get_renderables(self) -> Iterator[RenderableType]:
        """The bars; below them the seconds since one of them moved, if that is long ago."""
        yield from super().get_renderables()
        if (seconds := time.monotonic() - self.moved) > SECONDS_OF_SILENCE:
            yield f"working, {duration(seconds)}"


class Monitor:
    """Shows progress: one bar per activity, and validation metrics as lines above the bars.

    Where the output is no terminal, prints a line from time to time instead of bars.

    Arguments:
        progress: The bars.
        is_visible: Whether anything is printed.
    """

    def __init__(self, progress: Bars, is_visible: bool) -> None:
        self.progress, self.is_visible = progress, is_visible
        self.seconds: dict[str, float] = {}
        self.has_trained = False
        self._activities: dict[str, Activity] = {}
        self._losses: dict[str, LossTrend] = {}
        self._last_line = self._last_event = time.monotonic()

    def show(self, event: Event) -> None:
        """Shows an event of training."""
        now = time.monotonic()
        # The first step, which may include compilation, belongs to the stage, too.
        passed = now - self._last_event
        self.seconds[event.stage] = self.seconds.get(event.stage, 0.0) + passed
        self._last_event = now
        self.has_trained |= bool(event.metrics)
        if event.split == "train" and event.metrics:
            self._losses.setdefault(event.stage, LossTrend()).add(event.metrics)
        if event.text:
            self._print(event.text, style="yellow")
        if event.split == "validation" and event.metrics:
            self._print(
                f"{event.stage}  step {event.done}/{event.total}  "
                f"{duration(self.seconds[event.stage])}  {validation_text(event.metrics)}"
            )
        if event.total:
            loss = self._losses.get(event.stage)
            texts = (loss.text() if loss else "", speed_text(event))
            self.track(event.stage, event.done, event.total, "  ".join(filter(None, texts)))

    def follow(self, events: Generator[Event, None, T]) -> T:
        """Shows all events; returns what comes after them."""
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                result: T = end.value
                return result
            self.show(event)

    def track(self, name: str, done: int, total: int, speed: str = "") -> None:
        """Moves the bar of an activity; `data.images.Progress`."""
        now = self._last_event = self.progress.moved = time.monotonic()
        activity = self._activities.get(name)
        if activity is None:
            activity = Activity(self.progress.add_task(name, speed=""), now, done, done)
            self._activities[name] = activity
        elif done < activity.done:  # the same activity on other images
            self.progress.reset(activity.bar)
            activity.begin, activity.first = now, done
        activity.done = done
        self.progress.update(activity.bar, completed=done, total=total)
        if speed:
            self.progress.update(activity.bar, speed=speed)
        if self.progress.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line, left = now, ""
            if done > activity.first:
                rate = (done - activity.first) / (now - activity.begin)
                left = f"{duration((total - done) / rate)} left"
            self._print("  ".join(filter(None, (name, f"{done:,}/{total:,}", speed, left))))

    def _print(self, text: str, style: str = "") -> None:
        if self.is_visible:
            self.progress.console.print(text, style=style)


@contextmanager
def monitor(is_visible: bool = True) -> Iterator[Monitor]:
    """Shows progress while the block runs; `is_visible` is False on all processes but one."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=40 if console.width >= WIDE else 10),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    has_bars = is_visible and console.is_terminal
    with Bars(*columns, console=console, disable=not has_bars) as progress:
        try:
            yield Monitor(progress, is_visible)
        finally:
            progress.moved = math.inf  # the last drawing stays on the terminal


def speed_text(event: Event) -> str:
    """The speed of a stage; "" if it is unknown."""
    speed = f"{event.examples_per_second:,.0f} images/s" if event.examples_per_second else ""
    if not event.peak_fraction or console.width < WIDE:
        return speed
    return f"{speed}, {event.peak_fraction:.0%} of peak FLOP/s"


def validation_text(metrics: Mapping[str, float]) -> str:
    """The most important of the validation metrics."""
    titles = {name: title for name, title in LOGGED_METRICS.items() if name in metrics}
    parts = [f"{title} {metrics[name]:.4g}" for name, title in titles.items()]
    shares = [
        format_metric("share_used", value)
        for name, value in metrics.items()
        if name.startswith("share_used.")
    ]
    return "  ".join([*parts, f"codes used {', '.join(shares)}"] if shares else parts)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table; one that is too wide in parts, each with the columns that name its rows."""
    console.print(title)
    for part in fitting_parts(columns, rows, console.width):
        view = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for number in part:
            view.add_column(printable(columns[number]), no_wrap=number == 0, overflow="fold")
        for row in rows:
            view.add_row(*(printable(row[number]) for number in part))
        console.print(view)


def fitting_parts(
    columns: Sequence[str], rows: Sequence[Sequence[str]], width: int
) -> list[list[int]]:
    """The columns of a table in parts that fit into `width` without shortening a number.

    Each part begins with the first columns, as many as tell all rows apart. Only cells with
    spaces, which are texts, may wrap.
    """
    needed = [
        SPACING + max(len(word) for cell in cells for word in (cell.split() or [""]))
        for cells in zip(columns, *rows, strict=True)
    ]
    if rows:  # the first column does not wrap
        needed[0] = SPACING + max(len(row[0]) for row in rows)
    counts = range(1, len(columns))
    enough = (n for n in counts if len({tuple(row[:n]) for row in rows}) == len(rows))
    names = list(range(next(enough, 1)))
    start = sum(needed[number] for number in names)
    parts, used = [[*names]], start
    for number in range(len(names), len(columns)):
        if used + needed[number] > width and len(parts[-1]) > len(names):
            parts.append([*names])
            used = start
        parts[-1].append(number)
        used += needed[number]
    return parts


def show_table(view: tables.Table) -> None:
    """Prints a table of results with its note."""
    table(view.title, view.header, view.rows)
    if view.note:
        console.print(view.note)


def show_metrics(metrics: RunMetrics) -> None:
    """The metrics of reconstructions and priors: one row per metric, one column per level."""
    named = [
        ("", metrics.reconstruction),
        ("sharp decoder: ", metrics.sharp_reconstruction),
        ("", metrics.priors),
    ]
    measured = [(prefix, measurement) for prefix, measurement in named if measurement]
    sizes = (len(values) for _, m in measured for values in m.per_level.values())
    num_levels = max(sizes, default=0)
    rows = [
        [f"{prefix}{METRICS[name].title()}", *cells]
        for prefix, measurement in measured
        for name, cells in tables.metric_cells(measurement, num_levels).items()
        if any(cells)
    ]
    num_images = metrics.provenance.validation_images if metrics.provenance else 0
    columns = ["metric", "all", *(f"level {level}" for level in range(num_levels))]
    table(f"Metrics of {counted(num_images, 'validation image')}", columns, rows)


def show_skipped(reasons: Mapping[str, str]) -> None:
    """The images that cannot be used, with the reason of each."""
    for name, reason in list(reasons.items())[:MAX_SKIPPED]:
        console.print(f"skipped {name}: {reason}", style="yellow")
    if (number := len(reasons) - MAX_SKIPPED) > 0:
        console.print(f"and {number:,} more", style="yellow")
