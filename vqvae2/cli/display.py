"""How long work looks in a terminal, and how it stops."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from vqvae2.training.job import Event

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

SHOWN = ("mse", "nats_per_code", "share_used.0", "share_used.1", "share_used.2")
"""Held-out figures worth a line while training."""


class Stopper:
    """Turns Ctrl-C and SIGTERM into a question that training asks after every step.

    The first asks to save and stop; a second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self.asked = False
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

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        errors.print("Stopping after this step and saving; once more stops at once.")


class Monitor:
    """A bar a stage with speed and time left; held-out figures as lines above it."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.bars: dict[str, TaskID] = {}
        self.begun: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def show(self, event: "Event") -> None:
        """Shows one event of a job."""
        now = time.monotonic()
        name = event.stage if event.stage != "codes" else f"codes {event.split}"
        self.begun.setdefault(event.stage, now)
        self.seconds[event.stage] = now - self.begun[event.stage]
        if event.text:
            self.progress.console.print(f"[yellow]{event.text}[/yellow]")
        if event.split == "held_out" and event.figures:
            self.progress.console.print(self._line(event))
        if event.total:
            if name not in self.bars:
                self.bars[name] = self.progress.add_task(name, total=event.total, speed="")
            bar = self.bars[name]
            self.progress.update(bar, completed=event.done)
            if event.rate:
                self.progress.update(bar, speed=f"{event.rate:,.0f} pictures/s")

    def pictures(self, text: str, done: int, total: int) -> None:
        """Progress of reading pictures, as `open_pictures` tells it."""
        if text not in self.bars:
            self.bars[text] = self.progress.add_task(text, total=total, speed="")
        self.progress.update(self.bars[text], completed=done, total=total)

    def _line(self, event: "Event") -> str:
        minutes = self.seconds[event.stage] / 60
        figures = "  ".join(f"{k} {event.figures[k]:.4g}" for k in SHOWN if k in event.figures)
        return f"{event.stage}  step {event.done}/{event.total}  {minutes:.1f} min  {figures}"


@contextmanager
def monitor() -> Iterator[Monitor]:
    """Bars while something long runs."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,}/{task.total:,}"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        yield Monitor(progress)


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Prints a table."""
    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        view.add_column(column, no_wrap=number == 0)
    for row in rows:
        view.add_row(*row)
    console.print(view)
