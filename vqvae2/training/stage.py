"""A stage of a run: what it is called, whether it is done, and how it runs."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.session import Event, TrainingSession

SHARED_FIELDS = ("preset", "seed", "data", "autoencoder", "num_classes", "precision")
"""Fields of a run's config on which every trained model depends."""


class Stage(ABC):
    """One part of a run, done once; the command line, the doctor and the report list them."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Names its logs, checkpoints and previews: "autoencoder", "codes", "prior0", ..."""

    @property
    @abstractmethod
    def group(self) -> str:
        """The word that selects it on the command line; several stages may share one."""

    @property
    @abstractmethod
    def title(self) -> str:
        """The name in messages and reports, such as `prior of level 0`."""

    @property
    @abstractmethod
    def training(self) -> TrainingConfig | None:
        """How its model is trained; None where nothing is trained."""

    @property
    @abstractmethod
    def depends_on(self) -> tuple[str, ...]:
        """Fields of the run's config that may not change once the stage has begun."""

    @abstractmethod
    def done(self, folder: RunFolder) -> bool:
        """Whether its result is in the run folder."""

    @abstractmethod
    def run(self, session: TrainingSession) -> Iterator[Event]:
        """Does the stage, resuming where it stopped; if it is done, only validates its result."""


def has_begun(stage: Stage, folder: RunFolder) -> bool:
    """Whether a stage has left anything in the run folder that others depend on."""
    return stage.done(folder) or any(folder.checkpoints(stage.name).glob("*.safetensors"))


def is_saved(model: Path) -> bool:
    """Whether a folder holds a complete model: its config is written last."""
    return (model / "config.json").is_file()


def require_autoencoder(folder: RunFolder) -> None:
    """Raises ValueError where no trained autoencoder is in the run folder."""
    if not is_saved(folder.autoencoder):
        raise ValueError(
            f"{folder.path} has no trained autoencoder yet; train `--stage autoencoder` first."
        )
