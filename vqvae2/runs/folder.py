"""The run folder: where everything of a run lies.

    config.json                    the resolved `Run`
    data.json                      class names, counts, images that could not be read
    log/STAGE.jsonl                figures by step; the same after any number of interruptions
    log/STAGE.timing.jsonl         examples a second, by step
    checkpoints/STAGE/             full states, the last two, and the best weights
    model/                         the pipeline, in the hub's layout
    codes/                         the code data set, Parquet shards
    previews/ samples/ quality/    images
    metrics.json report.html       what `evaluate` and `report` write

STAGE is `stage1`, `prior0`, `prior1`, ...
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqvae2.configuration import differences, from_dict, to_dict
from vqvae2.files import PART_SUFFIX, UnknownVersion, read_json, write_bytes, write_json
from vqvae2.metrics.results import RunMetrics
from vqvae2.runs.config import RunConfig


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and the small files in it."""

    path: Path

    def create(self, run: RunConfig, facts: Mapping[str, Any]) -> None:
        """Writes config.json and data.json, or checks that what was begun stays the same.

        Only what nothing depends on yet may change: the stages that are not begun, how codes are
        drawn, where the same images lie.

        Arguments:
            facts: of the images: classes, counts, fingerprints, skipped.
        """
        path = self.path / "config.json"
        if path.exists() and any(self.begun(stage) for stage in self.read().trainings()):
            changed = differences(to_dict(self.read()), to_dict(run))
            fixed = [line for line in changed if not self._may_change(line.split(":")[0])]
            if fixed:
                raise ValueError(
                    f"{self.path} was begun with another config ({'; '.join(fixed[:4])}); "
                    "use another --run, or the same options to go on."
                )
            self._require_same_images(facts)
            # Of images that are decoded when their turn comes, some were met earlier.
            met = [*self.read_data().get("skipped", []), *facts["skipped"]]
            facts = {**facts, "skipped": list(dict.fromkeys(met))}
        write_json(path, "vqvae2-run", 2, to_dict(run))
        write_json(self.path / "data.json", "vqvae2-data", 1, facts)

    def write_skipped(self, names: Sequence[str]) -> None:
        """Adds images that could not be read to data.json."""
        facts = self.read_data()
        facts["skipped"] = list(dict.fromkeys([*facts.get("skipped", []), *names]))
        write_json(self.path / "data.json", "vqvae2-data", 1, facts)

    def _may_change(self, name: str) -> bool:
        """Whether a field of the config can change without changing what was begun."""
        first, _, rest = name.partition(".")
        if name.endswith((".skip_not_finite", ".recompute", ".shard_optimizer")):
            return True  # they change nothing of what was learnt
        if first == "augmentation":
            return not any(self.begun(f"prior{level}") for level in range(len(self.read().priors)))
        if first in ("priors", "stage2"):
            return not self.begun(f"prior{rest.split('.')[0]}")
        return first == "sampling" or name in ("data.source", "data.memory_gib")

    def _require_same_images(self, facts: Mapping[str, Any]) -> None:
        before = self.read_data()
        for name in ("class_names", "train_fingerprint", "validation_fingerprint"):
            if before.get(name, facts[name]) != facts[name]:
                raise ValueError(
                    f"The images are not those that {self.path} was begun with ({name}: "
                    f"{before[name]} before, {facts[name]} now; {before.get('train')} and "
                    f"{facts['train']} to train on); bring them back or use another --run."
                )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the folder alone: two trainings would write into one another's files.

        The system lets go when the process ends, however it ends.
        """
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:  # not of this kind of system
            yield
            return
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / ".lock").open("w") as file:
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                raise ValueError(
                    f"{self.path} is being trained by another process; wait for it, stop it, or "
                    "use another --run."
                ) from None
            except OSError:
                pass  # some shared file systems have no locks
            yield

    def sweep(self) -> None:
        """Removes what a kill in the middle of a write left behind."""
        for path in self.path.rglob(f".*{PART_SUFFIX}"):
            path.unlink()

    def read(self) -> RunConfig:
        """The run that this folder was begun with."""
        path = self.path / "config.json"
        if not path.is_file():
            near = sorted(p.parent.name for p in self.path.parent.glob("*/config.json"))[:5]
            hint = f"; beside it are: {', '.join(near)}" if near else ""
            raise ValueError(f"{self.path} is not a run folder: config.json is missing{hint}.")
        return from_dict(RunConfig, read_json(path, "vqvae2-run", 2))

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

    def begun(self, stage: str) -> bool:
        """Whether anything of "stage1", "prior0", ... is kept already."""
        return self.done(stage) or any(self.checkpoints(stage).glob("*.safetensors"))

    def checkpoints(self, stage: str) -> Path:
        """A stage's checkpoints."""
        return self.path / "checkpoints" / stage

    def preview(self, stage: str, step: int) -> Path:
        """The image of a stage at a step."""
        return self.path / "previews" / f"{stage}-{step:07d}.png"

    def neighbours(self, extractor: str) -> Path:
        """The image of samples beside their nearest training images."""
        name = re.sub(r"[^\w.-]+", "-", extractor)
        return self.path / "quality" / f"{name}-neighbours.png"

    def log(self, stage: str) -> "Log":
        """A stage's log."""
        return Log(self.path / "log" / f"{stage}.jsonl")

    def read_data(self) -> dict[str, Any]:
        """What was written of the data, {} before the first training."""
        path = self.path / "data.json"
        return read_json(path, "vqvae2-data", 1) if path.is_file() else {}

    def write_metrics(self, metrics: RunMetrics) -> None:
        """Writes metrics.json."""
        write_json(self.path / "metrics.json", "vqvae2-metrics", 3, to_dict(metrics))

    def read_metrics(self) -> RunMetrics:
        """The results of `evaluate`; empty before it, or where another version wrote them."""
        path = self.path / "metrics.json"
        try:
            return from_dict(RunMetrics, read_json(path, "vqvae2-metrics", 3), "metrics")
        except (FileNotFoundError, UnknownVersion):
            return RunMetrics()


@dataclass(frozen=True)
class Log:
    """Figures by step as JSON lines, `{"step": ..., "split": "train" | "validation", ...}`.

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
        for path in (self.path, self._timing):
            if path.exists():
                lines = [line for line in self._lines(path) if line["step"] <= step]
                write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines).encode())

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
