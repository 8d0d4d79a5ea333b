"""What every stage of a run works with: the run, its images and the processes that train it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from vqvae2.data.augmentation import AugmentedImages
from vqvae2.data.images import ImageSplits
from vqvae2.distributed import World, num_launched
from vqvae2.messages import shortened
from vqvae2.precision import set_products
from vqvae2.runs.budget import Budget
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

DISTRIBUTED_OPTIONS = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""Of a module on several processes. Buffers are codebooks: every process updates them itself.
Gradients lie where they are exchanged, so they exist once."""


class Stopped(Exception):
    """The run was asked to stop; everything is saved."""


@dataclass(frozen=True)
class Event:
    """Progress of a stage, metrics, or a sentence.

    Arguments:
        stage: name of the stage.
        done, total: steps or images.
        metrics: of the training step or the validation, if any were computed.
        split: "train" or "validation".
        examples_per_second: speed of training.
        peak_fraction: of the machine's rate of matrix products that this speed reaches.
        text: a sentence for the user.
        model: the averaged model whose validation this is, in eval mode; it is trained further.
    """

    stage: str
    done: int = 0
    total: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    split: str = "train"
    examples_per_second: float = 0.0
    peak_fraction: float = 0.0
    text: str = ""
    model: nn.Module | None = None


@dataclass(frozen=True)
class TrainingSession:
    """One call to train a run.

    Arguments:
        folder: where everything is written.
        config: what to compute.
        splits: the images.
        accelerator: processes and device, see `new_accelerator`.
        should_stop: called after every step; True saves and raises `Stopped`.
        budget: of a new run that was planned for a number of hours.
    """

    folder: RunFolder
    config: RunConfig
    splits: ImageSplits
    accelerator: "Accelerator"
    should_stop: Callable[[], bool] = lambda: False
    budget: Budget | None = None

    @cached_property
    def world(self) -> World:
        """The processes that train together."""
        accelerator = self.accelerator
        return World(accelerator.process_index, accelerator.num_processes, str(accelerator.device))

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        return self.accelerator.device

    @property
    def augmented(self) -> AugmentedImages:
        """The training images and their variants, as they become codes."""
        return AugmentedImages(self.splits.train, self.config.augmentation, self.config.seed)

    @property
    def skipped(self) -> list[str]:
        """The names of the unusable images that this process has met."""
        return [*self.splits.train.reasons, *self.splits.validation.reasons]


def report_skipped(session: TrainingSession, stage: str, known: set[str]) -> Iterator[Event]:
    """A sentence if a stage met unusable images, which were replaced by others.

    Arguments:
        known: names that were reported before; the new ones are added.
    """
    new = sorted({*session.world.gather_objects(session.skipped)} - known)
    if not new:
        return
    known |= {*new}
    if session.world.is_main:
        session.folder.add_skipped(new)
    yield Event(
        stage,
        text=f"{len(new):,} of the images cannot be used: {shortened(new)}; they were replaced "
        f"by other images. All are listed in {session.folder.path / 'data.json'}.",
    )


def new_accelerator(
    config: RunConfig, folder: RunFolder, tracker: str | None = None
) -> "Accelerator":
    """The processes and the device that train a run.

    Arguments:
        tracker: name of one of accelerate's trackers; its package must be installed.

    Raises:
        ValueError: the precision is not one of this device, or the processes do not find another.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    size = num_launched()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.precision == "float16" and device.type != "cuda":
        raise ValueError(
            "precision float16 needs a GPU, none was found; use bfloat16, float32 or auto."
        )
    set_products(config.precision, device)
    accelerator = Accelerator(
        # Without this, processes on a machine without a GPU would not join one group.
        cpu=size > 1 and not torch.accelerator.is_available(),
        mixed_precision="no",  # each stage has its own, see `vqvae2.training.precision_choice`
        log_with=tracker,
        project_dir=str(folder.path),
        kwargs_handlers=[DistributedDataParallelKwargs(**DISTRIBUTED_OPTIONS)],
    )
    if accelerator.num_processes != size:
        raise ValueError(
            f"{size} processes were started, but {accelerator.num_processes} train together; "
            "start them with `torchrun` or `accelerate launch`."
        )
    accelerator.init_trackers("vqvae2")
    return accelerator


def examples_per_part(training: TrainingConfig, world: World) -> int:
    """Examples that a process holds at once in training; that many also fit for validation."""
    return max(1, training.batch // (training.accumulate * world.size))


def require_batch(num_examples: int, training: TrainingConfig, world: World) -> None:
    """Raises ValueError unless the number of examples and the batch allow a step."""
    batch, parts = training.batch, world.size * training.accumulate
    if num_examples < batch:
        raise ValueError(
            f"Training needs at least one batch of {batch} images, got {num_examples}; add images "
            f"or use a batch of at most {num_examples}."
        )
    if batch % parts:
        raise ValueError(
            f"A batch of {batch} does not divide into {world.size} processes with "
            f"{training.accumulate} parts each; use a multiple of {parts}."
        )
