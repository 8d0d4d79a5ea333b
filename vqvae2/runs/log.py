"""The log of a stage: metrics by step as JSON lines.

    {"step": 500, "split": "train" or "validation", "mse": ...}

What depends on the clock goes to a file beside it, so that this one is a function of the run.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vqvae2.files import write_bytes

LogLine = dict[str, float]
"""A step and the metrics of that step."""


@dataclass(frozen=True)
class Log:
    """The files of one stage, by the path of the first."""

    path: Path

    def write(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Appends a line of metrics."""
        append(self.path, {"step": step, "split": split, **metrics})

    def write_timing(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line of speeds."""
        append(self.timing_path, {"step": step, **metrics})

    def read(self, split: str) -> list[LogLine]:
        """All complete lines of a split, in order."""
        lines = (line for line in complete_lines(self.path) if line["split"] == split)
        return [{key: v for key, v in line.items() if not isinstance(v, str)} for line in lines]

    def read_timing(self) -> list[LogLine]:
        """All complete lines of speeds."""
        lines = complete_lines(self.timing_path)
        return [{key: v for key, v in line.items() if not isinstance(v, str)} for line in lines]

    def truncate(self, step: int) -> None:
        """Removes the lines after `step`: they will be computed again."""
        for path in (self.path, self.timing_path):
            if path.exists():
                lines = [line for line in complete_lines(path) if float(line["step"]) <= step]
                write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())

    @property
    def timing_path(self) -> Path:
        """The file of speeds."""
        return self.path.with_suffix(".timing.jsonl")


def complete_lines(path: Path) -> Iterator[dict[str, float | str]]:
    """The lines of a log; only the last can be cut, by a kill while it was written."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def append(path: Path, line: Mapping[str, float | str]) -> None:
    """Adds a line to a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
