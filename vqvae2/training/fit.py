"""Training of one stage, from its newest checkpoint to its last step: log, checkpoints, previews.

The loop itself is `vqvae2.training.loop`; this file is what a run folder keeps of it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic

import torch
from torch import Tensor, nn

from vqvae2.distributed import LateFlag, World
from vqvae2.files import write_bytes
from vqvae2.imaging.png import save_png
from vqvae2.messages import counted
from vqvae2.precision import FixedPrecision
from vqvae2.runs.log import Log
from vqvae2.runs.training import TrainingConfig
from vqvae2.training import checkpoint
from vqvae2.training.loop import (
    MetricSums,
    Output,
    Part,
    Progress,
    Task,
    TrainingState,
    new_state,
    train,
)
from vqvae2.training.precision_choice import choose_precision
from vqvae2.training.session import Event, Stopped, TrainingSession
from vqvae2.training.speed import measure_speed
from vqvae2.transfers import HostCopy

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class StageTraining(Generic[Part, Output]):
    """A task, its validation and its preview.

    Arguments:
        stage: name of the stage.
        task: what is trained.
        validate: metrics of the averaged model on the validation split.
        criterion: which of them, lower is better, selects the best weights; None takes the last.
        preview: an image of how the averaged model is doing.
        steps_before: steps of earlier stages; trackers accept no step twice.
    """

    stage: str
    task: Task[Part, Output]
    validate: Callable[[nn.Module], dict[str, float]]
    criterion: str | None
    preview: Callable[[nn.Module], "Image"]
    steps_before: int = 0


@dataclass(frozen=True)
class RunWriter(Generic[Part, Output]):
    """Writes what a stage produces into the run folder; only the main process writes."""

    session: TrainingSession
    job: StageTraining[Part, Output]

    @property
    def log(self) -> Log:
        """The log of the stage."""
        return self.session.folder.log(self.job.stage)

    @property
    def checkpoints(self) -> Path:
        """The folder of the stage's checkpoints."""
        return self.session.folder.checkpoints(self.job.stage)

    @property
    def best(self) -> Path:
        """The best averaged weights so far."""
        return self.checkpoints / "best.safetensors"

    def resume(self, precision: FixedPrecision) -> tuple[TrainingState, list[str]]:
        """The newest undamaged state, or a new one, and a sentence per damaged file after it.

        Arguments:
            precision: of training.
        """
        state = new_state(self.job.task, precision)
        saved, damaged = checkpoint.latest(self.checkpoints)
        if saved is not None:
            checkpoint.load_state(state, saved)
        require_same_progress([state.step], self.session.world)
        if self.session.world.is_main:
            self.log.truncate(state.step)
            for path in damaged:
                path.replace(path.with_suffix(".damaged"))
        texts = [f"{reason}; resuming from step {state.step}." for reason in damaged.values()]
        return state, texts

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint, if all processes have equal weights."""
        for phase in state.phases.values():
            require_equal_weights(phase.module, self.session.world)
        tensors = checkpoint.state_tensors(state)  # on every process, which may each have a part
        if self.session.world.is_main:
            checkpoint.save(self.checkpoints, state.step, tensors, state.notes)

    def save_best(self, state: TrainingState, value: float) -> None:
        """Writes the averaged weights unless an earlier validation was better."""
        if not value <= state.notes.get("best", float("inf")):
            return
        state.notes["best"] = value
        if self.session.world.is_main:
            tensors = checkpoint.average_tensors(state)
            best = checkpoint.Checkpoint(state.step, tensors, {"best": value})
            checkpoint.write_checkpoint(self.best, best)

    def load_best(self) -> str:
        """Puts the best averaged weights into the modules, or the last if the file is damaged.

        Returns:
            A sentence about the damage, or "".
        """
        self.session.world.barrier()
        text = ""
        try:
            best = checkpoint.read_checkpoint(self.best)
        except (checkpoint.DamagedFile, FileNotFoundError) as error:
            saved, _ = checkpoint.latest(self.checkpoints)
            if saved is None:
                raise
            best, text = saved, f"{error}; using the weights of step {saved.step} instead."
        for phase in self.job.task.phases:
            if phase.averaged:
                phase.module.load_state_dict(best.with_prefix("average", phase.name))
            phase.module.eval()
        return text

    def write_metrics(self, step: int, split: str, metrics: Mapping[str, float]) -> None:
        """Adds a line to the log and to the trackers."""
        if self.session.world.is_main:
            self.log.write(step, split, metrics)
            named = {f"{self.job.stage}/{split}/{name}": v for name, v in metrics.items()}
            self.session.accelerator.log(named, self.job.steps_before + step)

    def write_timing(self, step: int, rate: float, peak_fraction: float) -> None:
        """Adds a line to the log of speeds."""
        if self.session.world.is_main:
            timing = {"examples_per_second": rate, "peak_fraction": peak_fraction}
            self.log.write_timing(step, timing)

    def write_preview(self, state: TrainingState) -> None:
        """Writes an image of how the averaged model is doing."""
        if self.session.world.is_main:
            path = self.session.folder.preview(self.job.stage, state.step)
            save_png(path, self.job.preview(state.average))

    def list_examples(self, step: int) -> str:
        """Writes the names of the examples that led to `step`; returns a sentence."""
        names = self.job.task.example_names(step - 1)
        name = f"{self.job.stage}.step-{step}.rank-{self.session.world.rank}.txt"
        path = self.log.path.with_name(name)
        write_bytes(path, "".join(f"{name}\n" for name in names).encode())
        return f"examples {', '.join(names[:3])}, ...: all {len(names)} in {path}"


def fit(session: TrainingSession, job: StageTraining[Part, Output]) -> Iterator[Event]:
    """Trains to the last step and leaves the best averaged weights in the task's modules.

    Raises:
        Stopped: `session.should_stop` was true on any process, and the state is saved.
        FloatingPointError: a metric is NaN or infinite; nothing of that step is saved.
    """
    stage, training = job.stage, job.task.training
    writer = RunWriter(session, job)
    precision, choice = choose_precision(session, stage, job.task)
    state, damages = writer.resume(precision)
    yield from (Event(stage, text=text) for text in (choice, *damages) if text)
    speed = measure_speed(job.task, state.step, session.accelerator, precision)
    clock, guard = Clock(training.batch), FiniteGuard(stage, writer.list_examples)
    stop_requests = LateFlag(session.world)
    for progress in train(job.task, state, session.accelerator):
        clock.steps += 1
        stop = stop_requests.any(session.should_stop())
        schedule = Schedule.at(state.step, training, stop)
        guard.check(progress, now=schedule.needs_metrics)
        metrics: dict[str, float] = {}
        if progress.skipped:
            examples = writer.list_examples(state.step)
            text = f"step {state.step} was skipped: its gradient is NaN or infinite ({examples})"
            yield Event(stage, text=f"{stage}: {text}")
        elif schedule.needs_metrics:
            metrics = means_over_world(progress.sums, session.world)
        rate = clock.rate()
        if schedule.log and metrics:
            writer.write_metrics(state.step, "train", metrics)
            writer.write_timing(state.step, rate, speed.fraction(rate))
        yield Event(
            stage,
            state.step,
            training.steps,
            metrics,
            examples_per_second=rate,
            peak_fraction=speed.fraction(rate),
        )
        clock.pause()
        if schedule.validate:
            yield validate(writer, state)
        if schedule.save:
            writer.save(state)
        clock.resume()
        if stop and state.step < training.steps:
            raise Stopped
    if text := writer.load_best():
        yield Event(stage, text=text)
    session.accelerator.free_memory()


def validate(writer: RunWriter[Part, Output], state: TrainingState) -> Event:
    """Validates the averaged model, saves it if it is the best, and draws a preview."""
    job = writer.job
    metrics = job.validate(state.average)
    for phase in state.phases.values():
        phase.module.train()
    writer.write_metrics(state.step, "validation", metrics)
    writer.save_best(state, -state.step if job.criterion is None else metrics[job.criterion])
    writer.write_preview(state)
    return Event(
        job.stage,
        state.step,
        job.task.training.steps,
        metrics,
        split="validation",
        model=state.average,
    )


class FiniteGuard:
    """Stops a run whose loss is NaN or infinite, before anything of it is saved.

    The metrics of a step are copied to the host while the device computes the next one, so that it
    never waits; they are read at once where something is about to be saved.

    Arguments:
        stage: name of the stage.
        list_examples: writes the names of a step's examples, returns a sentence with the path.
    """

    def __init__(self, stage: str, list_examples: Callable[[int], str]) -> None:
        self.stage, self.list_examples = stage, list_examples
        self.pending: PendingMetrics | None = None

    def check(self, progress: Progress, now: bool) -> None:
        """Reads the step before, and with `now` this one; raises FloatingPointError."""
        if self.pending is not None:
            self.require_finite(self.pending)
        self.pending = None if progress.skipped else PendingMetrics(progress)
        if now and self.pending is not None:
            self.require_finite(self.pending)
            self.pending = None

    def require_finite(self, pending: "PendingMetrics") -> None:
        """Raises FloatingPointError unless all metrics of a step are finite.

        A loss scale below 1 is as bad: gradients overflow however often it is halved.
        """
        values = pending.values()
        invalid = [name for name, value in values.items() if not math.isfinite(value)]
        if invalid:
            raise FloatingPointError(
                f"{self.stage} has {', '.join(invalid)} = {values[invalid[0]]} at step "
                f"{pending.step} ({self.list_examples(pending.step)}); the last checkpoint is "
                "kept. Try a smaller learning rate in another run, or resume with "
                "max_skipped_steps, which skips a few steps."
            )
        scales = [v for name, v in values.items() if name.startswith("loss_scale.")]
        if min(scales, default=1.0) < 1:
            raise FloatingPointError(
                f"{self.stage} overflows in float16 at step {pending.step}, even with its loss "
                f"scaled by {min(scales):g}; the last checkpoint is kept. For another run use "
                "precision bfloat16 or float32, or a smaller learning rate."
            )


class PendingMetrics:
    """The metrics of a step on their way to the host."""

    def __init__(self, progress: Progress) -> None:
        metrics = progress.metrics
        self.step, self.names = progress.step, list(metrics)
        self.numbers = HostCopy(torch.stack([value.float() for value in metrics.values()]))

    def values(self) -> dict[str, float]:
        """The metrics; waits for their step alone."""
        return dict(zip(self.names, self.numbers.read().tolist(), strict=True))


@dataclass(frozen=True)
class Schedule:
    """What follows a step."""

    log: bool
    validate: bool
    save: bool

    @classmethod
    def at(cls, step: int, training: TrainingConfig, stop: bool) -> "Schedule":
        """The schedule after `step` completed steps; a stop saves."""
        last = step == training.steps
        return cls(
            log=last or step % training.log_every == 0,
            validate=last or step % training.validate_every == 0,
            save=last or stop or step % training.save_every == 0,
        )

    @property
    def needs_metrics(self) -> bool:
        """Whether this step's metrics must be known: nothing is saved of an unchecked step."""
        return self.log or self.validate or self.save


class Clock:
    """Training speed in examples/s, without validation and saving."""

    def __init__(self, batch: int) -> None:
        self.batch, self.steps = batch, 0
        self.seconds, self.since = 0.0, time.monotonic()

    def pause(self) -> None:
        """Something other than training begins."""
        self.seconds += time.monotonic() - self.since

    def resume(self) -> None:
        """Training continues."""
        self.since = time.monotonic()

    def rate(self) -> float:
        """Examples per second."""
        seconds = self.seconds + time.monotonic() - self.since
        return self.steps * self.batch / max(1e-9, seconds)


def require_same_progress(numbers: list[int], world: World) -> None:
    """Raises ValueError, on all processes, where they find different files in the run folder."""
    world.require_equal(
        numbers,
        "The processes read different run folders: they disagree about which steps and stages are "
        "done. Name a folder that all machines share.",
    )


def require_equal_weights(module: nn.Module, world: World) -> None:
    """Raises ValueError where processes no longer have equal weights and codebooks.

    They compute the same from the same sums; a machine that computes differently shows here.
    """
    if world.size == 1:
        return
    state = module.state_dict()
    sums = world.gather(torch.stack([bit_sum(value) for value in state.values()])[None])
    differing = [
        name for name, column in zip(state, sums.T, strict=True) if column.unique().numel() > 1
    ]
    if differing:
        raise ValueError(
            f"The processes have diverged: {counted(len(differing), 'tensor')}, beginning with "
            f"{differing[0]}, differ between them. One machine computes differently (another "
            "torch, a faulty device?); the last checkpoint is from before."
        )


def bit_sum(value: Tensor) -> Tensor:
    """The sum of a tensor's bit patterns, int64: equal where all bits are, in any order."""
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return value.contiguous().view(integers[value.element_size()]).sum(dtype=torch.int64)


def means_over_world(sums: MetricSums, world: World) -> dict[str, float]:
    """The mean of each metric over all that the processes have summed; waits for the device."""
    totals = world.sum(torch.stack([torch.stack(pair).float() for pair in sums.values()]))
    means = totals[:, 0] / totals[:, 1].clamp_min(1)
    return dict(zip(sums, means.tolist(), strict=True))
