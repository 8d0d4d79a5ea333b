"""The run folder: where everything of a run lies.

    config.json                    the resolved `RunConfig`
    data.json                      class names, counts, images that cannot be used
    budget.json                    hours of the run, and what is spent of them, if it has a budget
    precision.json                 what the precision "auto" means for each stage that has begun
    log/STAGE.jsonl                metrics by step; the same after any number of interruptions
    log/STAGE.timing.jsonl         examples per second, by step
    checkpoints/STAGE/             training states, the last two, and the best weights
    model/                         the pipeline, in the hub's layout
    codes/                         the code dataset, Parquet shards
    previews/ samples/ quality/    images
    metrics.json report.html       what `evaluate` and `report` write

STAGE is `autoencoder`, `decoder`, `prior0`, `prior1`, ... (`vqvae2.training.stages`).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vqvae2.configuration import from_dict, to_dict
from vqvae2.files import PART_SUFFIX, UnknownVersion, read_json, write_json
from vqvae2.metrics.results import RunMetrics
from vqvae2.pipeline import PipelineConfig
from vqvae2.precision import FixedPrecision
from vqvae2.runs.budget import Budget
from vqvae2.runs.config import RunConfig
from vqvae2.runs.log import Log

CONFIG, CONFIG_VERSION = "vqvae2-run", 3
DATA, DATA_VERSION = "vqvae2-data", 2
METRICS, METRICS_VERSION = "vqvae2-metrics", 3
PRECISION, PRECISION_VERSION = "vqvae2-precision", 1
BUDGET, BUDGET_VERSION = "vqvae2-budget", 1

REMEDY = "use the version of vqvae2 that began this run, or train in another run folder"


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """The images of a run, in data.json.

    Arguments:
        class_names: in the order of the labels; () without labels.
        num_train: training images.
        num_validation: validation images.
        train_fingerprint: of the training images.
        validation_fingerprint: of the validation images.
        skipped: names of the images that cannot be used.
    """

    class_names: tuple[str, ...]
    num_train: int
    num_validation: int
    train_fingerprint: str
    validation_fingerprint: str
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StagePrecision:
    """What "auto" means for the training of a stage.

    Arguments:
        precision: of its steps.
        reason: a sentence, with what was measured; "" where nothing was.
    """

    precision: FixedPrecision
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StagePrecisions:
    """The content of precision.json, by stage."""

    stages: dict[str, StagePrecision] = field(default_factory=dict)


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run and the small files in it.

    Arguments:
        path: of the folder.
        results_in: where metrics.json and quality/ are, if not in the folder.
    """

    path: Path
    results_in: Path | None = None

    @property
    def results(self) -> Path:
        """The folder of what `evaluate` writes."""
        return self.results_in or self.path

    @property
    def model(self) -> Path:
        """The pipeline's folder."""
        return self.path / "model"

    @property
    def autoencoder(self) -> Path:
        """The trained autoencoder's folder."""
        return self.model / "autoencoder"

    @property
    def decoder(self) -> Path:
        """The trained sharp decoder's folder."""
        return self.model / "decoder"

    @property
    def classifier(self) -> Path:
        """The folder of the classifier that is the perceptual network of the decoder stage."""
        return self.path / "checkpoints" / "decoder" / "classifier"

    def prior(self, level: int) -> Path:
        """A trained prior's folder."""
        return self.model / "priors" / str(level)

    @property
    def codes(self) -> Path:
        """The code dataset's folder."""
        return self.path / "codes"

    def checkpoints(self, stage: str) -> Path:
        """The folder of a stage's checkpoints."""
        return self.path / "checkpoints" / stage

    def preview(self, stage: str, step: int) -> Path:
        """The preview of a stage at a step."""
        return self.path / "previews" / f"{stage}-{step:07d}.png"

    def latest_previews(self) -> dict[str, Path]:
        """The newest preview of each stage that has made one."""
        # Names end with the step in a fixed width, so that the last is the newest.
        paths = sorted((self.path / "previews").glob("*-*.png"))
        return {path.stem.rpartition("-")[0]: path for path in paths}

    def neighbours(self, extractor: str) -> Path:
        """The image of samples beside their nearest training images."""
        name = re.sub(r"[^\w.-]+", "-", extractor)
        return self.results / "quality" / f"{name}-neighbours.png"

    def log(self, stage: str) -> Log:
        """A stage's log."""
        return Log(self.path / "log" / f"{stage}.jsonl")

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "config.json").is_file()

    def read(self) -> RunConfig:
        """The config that the run was begun with.

        Raises:
            ValueError: this is no run folder, or its config is of another version.
        """
        if not self.exists():
            near = sorted(p.parent.name for p in self.path.parent.glob("*/config.json"))[:5]
            hint = f"; beside it are: {', '.join(near)}" if near else ""
            raise ValueError(f"{self.path} is not a run folder: config.json is missing{hint}.")
        path = self.path / "config.json"
        return from_dict(RunConfig, read_json(path, CONFIG, CONFIG_VERSION, REMEDY), str(path))

    def write_config(self, config: RunConfig) -> None:
        """Writes config.json."""
        write_json(self.path / "config.json", CONFIG, CONFIG_VERSION, to_dict(config))

    def write_pipeline(self, config: RunConfig, class_names: tuple[str, ...]) -> None:
        """Writes the pipeline's own config: models can be used as soon as they exist."""
        pipeline = PipelineConfig(
            image_size=config.data.size, class_names=class_names, sampling=config.sampling
        )
        pipeline.save(self.model)

    def read_data(self) -> DataSummary | None:
        """The content of data.json, None before the first training."""
        path = self.path / "data.json"
        if not path.is_file():
            return None
        return from_dict(DataSummary, read_json(path, DATA, DATA_VERSION, REMEDY), str(path))

    def write_data(self, summary: DataSummary) -> None:
        """Writes data.json."""
        write_json(self.path / "data.json", DATA, DATA_VERSION, to_dict(summary))

    def add_skipped(self, names: Sequence[str]) -> None:
        """Adds images that cannot be used to data.json."""
        if (summary := self.read_data()) is not None:
            skipped = tuple(dict.fromkeys([*summary.skipped, *names]))
            self.write_data(replace(summary, skipped=skipped))

    def read_precisions(self) -> dict[str, StagePrecision]:
        """The content of precision.json by stage; empty if nothing was chosen."""
        path = self.path / "precision.json"
        if not path.is_file():
            return {}
        content = read_json(path, PRECISION, PRECISION_VERSION, REMEDY)
        return from_dict(StagePrecisions, content, str(path)).stages

    def add_precision(self, stage: str, chosen: StagePrecision) -> None:
        """Adds what was chosen for a stage to precision.json."""
        self.write_precisions({**self.read_precisions(), stage: chosen})

    def write_precisions(self, stages: dict[str, StagePrecision]) -> None:
        """Writes precision.json."""
        content = to_dict(StagePrecisions(stages=stages))
        write_json(self.path / "precision.json", PRECISION, PRECISION_VERSION, content)

    def read_budget(self) -> Budget | None:
        """The content of budget.json, None for a run that was not planned for hours."""
        path = self.path / "budget.json"
        if not path.is_file():
            return None
        return from_dict(Budget, read_json(path, BUDGET, BUDGET_VERSION, REMEDY), str(path))

    def write_budget(self, budget: Budget) -> None:
        """Writes budget.json."""
        write_json(self.path / "budget.json", BUDGET, BUDGET_VERSION, to_dict(budget))

    def require_same_images(self, summary: DataSummary) -> DataSummary:
        """Raises ValueError unless the run was begun with these images.

        Returns:
            The summary, with the images that earlier calls skipped.
        """
        before = self.read_data()
        if before is None:
            return summary
        for name in ("class_names", "train_fingerprint", "validation_fingerprint"):
            if getattr(before, name) != getattr(summary, name):
                raise ValueError(
                    f"The images are not those that {self.path} was begun with ({name}: "
                    f"{getattr(before, name)} before, {getattr(summary, name)} now; "
                    f"{before.num_train} training images before, {summary.num_train} now); "
                    "restore them or use another --run."
                )
        return replace(summary, skipped=tuple(dict.fromkeys([*before.skipped, *summary.skipped])))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Locks the folder: two trainings would write into one another's files.

        The system releases the lock when the process ends, however it ends. A folder in which no
        run was begun is removed again.
        """
        try:
            from fcntl import LOCK_EX, LOCK_NB, flock
        except ImportError:  # not on this kind of system
            yield
            return
        new = [one for one in (self.path, *self.path.parents) if not one.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        with self._without_leftovers(new), (self.path / ".lock").open("w") as file:
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

    @contextmanager
    def _without_leftovers(self, new: Sequence[Path]) -> Iterator[None]:
        """Removes the new folders and the lock at the end, unless a run was begun in them."""
        try:
            yield
        finally:
            if new and not self.exists():
                (self.path / ".lock").unlink(missing_ok=True)
                with suppress(OSError):  # something else is in one of them
                    for folder in new:
                        folder.rmdir()

    def remove_partial_files(self) -> None:
        """Removes what a kill in the middle of a write left behind."""
        for path in self.path.rglob(f".*{PART_SUFFIX}"):
            path.unlink()

    def write_metrics(self, metrics: RunMetrics) -> None:
        """Writes metrics.json."""
        write_json(self.results / "metrics.json", METRICS, METRICS_VERSION, to_dict(metrics))

    def read_metrics(self) -> RunMetrics:
        """The content of metrics.json; empty if nothing was measured, or by another version."""
        path = self.results / "metrics.json"
        try:
            return from_dict(RunMetrics, read_json(path, METRICS, METRICS_VERSION), str(path))
        except (FileNotFoundError, UnknownVersion):
            return RunMetrics()
