"""The run folder: where everything of a run lies.

    config.json                    the resolved `Run`
    data.json                      class names, counts, pictures that could not be read
    log/STAGE.jsonl                figures by step; the same after any number of interruptions
    log/STAGE.timing.jsonl         examples a second, by step
    checkpoints/STAGE/             full states, the last two, and the best weights
    model/                         the pipeline, in the hub's layout
    codes/                         the code data set, Parquet shards
    previews/ samples/             pictures
    metrics.json report.html       what `evaluate` and `report` write

STAGE is `stage1`, `prior0`, `prior1`, ...
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvae2.configuration import (
    UNFINISHED,
    differences,
    from_dict,
    read_json,
    to_dict,
    write_bytes,
    write_json,
)
from vqvae2.training.config import Run


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and the small files in it."""

    path: Path

    def create(self, run: Run) -> None:
        """Writes the config, or checks that the one there is the same."""
        run.check()
        path = self.path / "config.json"
        if path.exists():
            changed = differences(to_dict(self.read()), to_dict(run))
            if changed:
                raise ValueError(
                    f"{self.path} was begun with another config ({'; '.join(changed[:4])}); "
                    "use another --run, or the same options to go on."
                )
            return
        write_json(path, "vqvae2-run", 1, to_dict(run))

    def sweep(self) -> None:
        """Removes what a kill in the middle of a write left behind."""
        for path in self.path.rglob(f".*{UNFINISHED}"):
            path.unlink()

    def read(self) -> Run:
        """The run that this folder was begun with."""
        path = self.path / "config.json"
        if not path.is_file():
            near = sorted(p.parent.name for p in self.path.parent.glob("*/config.json"))[:5]
            hint = f"; beside it are: {', '.join(near)}" if near else ""
            raise ValueError(f"{self.path} is not a run folder: config.json is missing{hint}.")
        return from_dict(Run, read_json(path, "vqvae2-run", 1))

    @property
    def model(self) -> Path:
        """The pipeline's folder."""
        return self.path / "model"

    @property
    def codes(self) -> Path:
        """The code data set's folder."""
        return self.path / "codes"

    def done(self, stage: str) -> bool:
        """Whether the model of "stage1", "prior0", ... is trained and written."""
        path = "autoencoder" if stage == "stage1" else f"priors/{stage.removeprefix('prior')}"
        return (self.model / path / "config.json").is_file()

    def checkpoints(self, stage: str) -> Path:
        """A stage's checkpoints."""
        return self.path / "checkpoints" / stage

    def preview(self, stage: str, step: int) -> Path:
        """The picture of a stage at a step."""
        return self.path / "previews" / f"{stage}-{step:07d}.png"

    def log(self, stage: str) -> "Log":
        """A stage's log."""
        return Log(self.path / "log" / f"{stage}.jsonl")

    def write_data(self, facts: Mapping[str, Any]) -> None:
        """Writes data.json."""
        write_json(self.path / "data.json", "vqvae2-data", 1, facts)

    def read_data(self) -> dict[str, Any]:
        """What was written of the data, {} before the first training."""
        path = self.path / "data.json"
        return read_json(path, "vqvae2-data", 1) if path.is_file() else {}

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Writes metrics.json."""
        write_json(self.path / "metrics.json", "vqvae2-metrics", 1, metrics)

    def read_metrics(self) -> dict[str, Any]:
        """What `evaluate` wrote, {} if it did not run yet."""
        path = self.path / "metrics.json"
        return read_json(path, "vqvae2-metrics", 1) if path.is_file() else {}


@dataclass(frozen=True)
class Log:
    """Figures by step as JSON lines, `{"step": ..., "split": "train" | "held_out", ...}`.

    What depends on the clock goes to a file beside it, so that this one is a function of the run.
    """

    path: Path

    def write(self, step: int, split: str, figures: Mapping[str, float]) -> None:
        """Appends a line."""
        self._append(self.path, {"step": step, "split": split, **figures})

    def write_timing(self, step: int, figures: Mapping[str, float]) -> None:
        """Appends a line of what the clock says."""
        self._append(self._timing, {"step": step, **figures})

    def read(self, split: str) -> list[dict[str, float]]:
        """All whole lines of a split, in order."""
        return [line for line in self._lines(self.path) if line["split"] == split]

    def read_timing(self) -> list[dict[str, float]]:
        """All whole lines of what the clock said."""
        return list(self._lines(self._timing))

    def cut(self, step: int) -> None:
        """Drops the lines after `step`: they will be computed again."""
        kept = "".join(
            json.dumps(line) + "\n" for line in self._lines(self.path) if line["step"] <= step
        )
        if self.path.exists():
            write_bytes(self.path, kept.encode())

    @property
    def _timing(self) -> Path:
        return self.path.with_suffix(".timing.jsonl")

    @staticmethod
    def _lines(path: Path) -> Iterator[dict[str, Any]]:
        if not path.exists():
            return
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                # Only the last line can be cut short, by a kill while it was written.
                return

    @staticmethod
    def _append(path: Path, line: Mapping[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
