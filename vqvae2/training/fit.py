"""One stage of a run, from its newest checkpoint to its last step: log, states, best weights.

The loop itself is `vqvae2.training.loop`; here is what a run folder keeps of it.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vqvae2.files import write_bytes
from vqvae2.imaging.png import save_png
from vqvae2.runs.config import TrainingConfig
from vqvae2.runs.folder import Log, RunFolder
from vqvae2.training import checkpoint
from vqvae2.training.loop import Progress, State, Task, new_state, train
from vqvae2.training.speed import measure_speed

if TYPE_CHECKING:
    from PIL.Image import Image


class Stopped(Exception):
    """Someone asked the run to stop; everything is saved."""


@dataclass(frozen=True)
class Event:
    """What happened: progress of a stage, figures, or a sentence.

    Arguments:
        stage: "stage1", "codes", "prior0", ...
        done, total: steps or images.
        figures: of the training step or the validation set, if any were taken.
        split: whose figures.
        rate: examples a second.
        share: of the machine's rate of matrix products, that they reach.
        text: a sentence for the user.
    """

    stage: str
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    split: str = "train"
    rate: float = 0.0
    share: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class TrainingJob:
    """A task with all that a run folder needs to know of it.

    Arguments:
        stage: its name, "stage1" or "prior0", ...
        task: what is learnt.
        measure: figures of a module on validation examples.
        criterion: which of them, the lower the better, chooses the best weights.
        draw: a image of how the module is doing.
        steps_before: of earlier stages; trackers take no step twice.
    """

    stage: str
    task: Task
    measure: Callable[[nn.Module], dict[str, float]]
    criterion: str
    draw: Callable[[nn.Module], "Image"]
    steps_before: int = 0


@dataclass(frozen=True)
class RunWriter:
    """Writes what a stage has learnt into the run folder; only the main process writes.

    Arguments:
        folder: of the run.
        learning: the stage.
        accelerator: an `accelerate.Accelerator`.
    """

    folder: RunFolder
    learning: TrainingJob
    accelerator: Any

    @property
    def log(self) -> Log:
        """The stage's log."""
        return self.folder.log(self.learning.stage)

    @property
    def states(self) -> Path:
        """Where the stage's states lie."""
        return self.folder.checkpoints(self.learning.stage)

    @property
    def best(self) -> Path:
        """The best weights so far."""
        return self.states / "best.safetensors"

    def resume(self) -> tuple[State, list[str]]:
        """The newest whole state, or a new one, and a sentence for each damaged one after it."""
        state = new_state(self.learning.task)
        saved, damaged = checkpoint.latest(self.states)
        if saved is not None:
            state.load(saved)
        require_same([state.step], self.accelerator)
        if self.accelerator.is_main_process:
            self.log.cut(state.step)
            for path in damaged:
                path.replace(path.with_suffix(".damaged"))
        texts = [f"{reason}; going on from step {state.step}." for reason in damaged.values()]
        return state, texts

    def save(self, state: State) -> None:
        """Keeps the whole state, if all ranks have the same."""
        require_agreement(state.module, self.accelerator)
        tensors = state.tensors()  # on every rank, which may each have a part
        if self.accelerator.is_main_process:
            checkpoint.save(self.states, state.step, tensors, state.notes)

    def keep_best(self, state: State, value: float) -> None:
        """Keeps the averaged weights if no earlier look at validation examples was better."""
        if not value <= state.notes.get("best", float("inf")):
            return
        state.notes["best"] = value
        if self.accelerator.is_main_process:
            average = state.average.state_dict()
            checkpoint.write_state(self.best, state.step, average, {"best": value})

    def best_weights(self) -> tuple[dict[str, Tensor], str]:
        """The best averaged weights; if their file is damaged the last, and a sentence."""
        self.accelerator.wait_for_everyone()
        try:
            return checkpoint.read_state(self.best).tensors, ""
        except (checkpoint.DamagedFile, FileNotFoundError) as error:
            saved, _ = checkpoint.latest(self.states)
            if saved is None:
                raise
            average = {
                name.removeprefix("average."): tensor
                for name, tensor in saved.tensors.items()
                if name.startswith("average.")
            }
            return average, f"{error}; using the weights of step {saved.step} instead."

    def write(
        self,
        step: int,
        split: str,
        figures: Mapping[str, float],
        rate: float = 0.0,
        share: float = 0.0,
    ) -> None:
        """Adds a line to the log and to the trackers."""
        if not self.accelerator.is_main_process:
            return
        self.log.write(step, split, figures)
        if rate:
            timing = {"examples_per_second": rate, "share_of_peak": share}
            self.log.write_timing(step, timing)
        named = {f"{self.learning.stage}/{split}/{n}": v for n, v in figures.items()}
        self.accelerator.log(named, self.learning.steps_before + step)

    def list_examples(self, step: int) -> str:
        """Keeps the names of the examples that led this rank to `step`; says where they are."""
        names = self.learning.task.names(step - 1)
        name = f"{self.learning.stage}.step-{step}.rank-{self.accelerator.process_index}.txt"
        path = self.log.path.with_name(name)
        write_bytes(path, "".join(f"{name}\n" for name in names).encode())
        return f"examples {', '.join(names[:3])}, ...: all {len(names)} in {path}"

    def draw(self, state: State) -> None:
        """Keeps a image of how the averaged weights are doing."""
        if self.accelerator.is_main_process:
            path = self.folder.preview(self.learning.stage, state.step)
            save_png(path, self.learning.draw(state.average))


def fit(
    folder: RunFolder, learning: TrainingJob, accelerator: Any, should_stop: Callable[[], bool]
) -> Iterator[Event]:
    """Trains to the last step and leaves the best averaged weights in the task's module.

    Raises:
        Stopped: `should_stop` said so, on any rank, and the state is saved.
        FloatingPointError: a figure is no number; nothing of it is saved.
    """
    stage, config = learning.stage, learning.task.config
    writer = RunWriter(folder, learning, accelerator)
    state, texts = writer.resume()
    yield from (Event(stage, text=text) for text in texts)
    speed = measure_speed(learning.task, state.step, accelerator)
    clock, watch = Clock(config.batch), FiniteGuard(learning, writer.list_examples)
    for progress in train(learning.task, state, accelerator):
        clock.steps += 1
        stop = on_any_rank(should_stop(), accelerator)
        due = Schedule(config, state.step, stop)
        watch.look(progress, now=due.figures)
        figures: dict[str, float] = {}
        if progress.skipped:
            text = f"step {state.step} was left out: its gradient is no number"
            yield Event(stage, text=f"{stage}: {text} ({writer.list_examples(state.step)})")
        elif due.figures:
            figures = over_ranks(progress.counted, accelerator)
        if due.log and figures:
            writer.write(state.step, "train", figures, clock.rate(), speed.share(clock.rate()))
        rate = clock.rate()
        yield Event(stage, state.step, config.steps, figures, rate=rate, share=speed.share(rate))
        clock.pause()
        if due.validate:
            validation = learning.measure(state.average)
            state.module.train()
            writer.write(state.step, "validation", validation)
            writer.keep_best(state, validation[learning.criterion])
            writer.draw(state)
            yield Event(stage, state.step, config.steps, validation, split="validation")
        if due.save:
            writer.save(state)
        clock.go_on()
        if stop and state.step < config.steps:
            raise Stopped
    weights, text = writer.best_weights()
    if text:
        yield Event(stage, text=text)
    learning.task.module.load_state_dict(weights)
    learning.task.module.eval()
    accelerator.free_memory()


class FiniteGuard:
    """Stops a run whose loss is no number, before anything of it is saved.

    A step's figures start for the host when it ends and are read after the next was given to the
    device, which so always has something to do; at once where something is about to be kept.

    Arguments:
        learning: the stage.
        list_examples: keeps the names of a step's examples, says where.
    """

    def __init__(self, learning: TrainingJob, list_examples: Callable[[int], str]) -> None:
        self.learning, self.list_examples = learning, list_examples
        self.coming: PendingMetrics | None = None

    def look(self, progress: Progress, now: bool) -> None:
        """Reads the step before, and with `now` this one; raises FloatingPointError."""
        if self.coming is not None:
            self.require_finite(self.coming)
        self.coming = None if progress.skipped else PendingMetrics(progress)
        if now and self.coming is not None:
            self.require_finite(self.coming)
            self.coming = None

    def require_finite(self, coming: "PendingMetrics") -> None:
        """Reads a step's figures."""
        values = coming.values()
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(
                f"{self.learning.stage} has {', '.join(broken)} = {values[broken[0]]} at step "
                f"{coming.step} ({self.list_examples(coming.step)}); the last checkpoint is kept. "
                "Try a smaller learning rate in another run, or go on with skip_not_finite, "
                "which leaves a few steps out."
            )


class PendingMetrics:
    """A step's figures on their way to the host."""

    def __init__(self, progress: Progress) -> None:
        self.step, self.names = progress.step, list(progress.counted)
        stacked = torch.stack([value.float() for value in progress.figures.values()])
        self.numbers = stacked.to("cpu", non_blocking=True)
        self.arrived = None
        if stacked.is_cuda:
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def values(self) -> dict[str, float]:
        """The figures; waits for their step alone."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return dict(zip(self.names, self.numbers.tolist(), strict=True))


class Schedule:
    """What is due after a step."""

    def __init__(self, config: TrainingConfig, step: int, stop: bool) -> None:
        last = step == config.steps
        self.log = last or step % config.log_every == 0
        self.validate = last or step % config.validate_every == 0
        self.save = last or stop or step % config.save_every == 0
        # Nothing is kept of a step that was not looked at.
        self.figures = self.log or self.validate or self.save


class Clock:
    """Examples a second of training alone, since it was made."""

    def __init__(self, batch: int) -> None:
        self.batch, self.steps = batch, 0
        self.spent, self.since = 0.0, time.monotonic()

    def pause(self) -> None:
        """Something other than training begins."""
        self.spent += time.monotonic() - self.since

    def go_on(self) -> None:
        """Training goes on."""
        self.since = time.monotonic()

    def rate(self) -> float:
        """Examples a second."""
        spent = self.spent + time.monotonic() - self.since
        return self.steps * self.batch / max(1e-9, spent)


def on_any_rank(flag: bool, accelerator: Any) -> bool:
    """Whether `flag` is up on any rank: all must leave a collective together."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(float(flag), device=accelerator.device)
    return bool(accelerator.reduce(flags, "sum") > 0)


def require_same(numbers: list[int], accelerator: Any) -> None:
    """Raises ValueError, on all ranks, where they have not found the same in the run folder."""
    if accelerator.num_processes == 1:
        return
    found = accelerator.gather(torch.tensor([numbers], device=accelerator.device))
    if len(found.unique(dim=0)) > 1:
        raise ValueError(
            "The processes do not see the same run folder: one is further than another. Name a "
            "folder that all machines share."
        )


def require_agreement(module: nn.Module, accelerator: Any) -> None:
    """Raises ValueError where ranks no longer have equal weights and codebooks.

    They compute the same from the same sums; a machine that computes otherwise shows here.
    """
    if accelerator.num_processes == 1:
        return
    state = module.state_dict()
    own = torch.stack([bit_sum(value) for value in state.values()])
    sums = accelerator.gather(own[None])
    differ = [
        name for name, column in zip(state, sums.T, strict=True) if column.unique().numel() > 1
    ]
    if differ:
        raise ValueError(
            f"The processes have come apart: {differ[0]} and {len(differ) - 1} more tensors are "
            "not equal on all of them. One machine computes otherwise than the others (another "
            "torch, a faulty device?); the last checkpoint is from before."
        )


def bit_sum(value: Tensor) -> Tensor:
    """The sum of a tensor's bit patterns, int64: equal where all bits are, whoever adds."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return value.contiguous().view(whole[value.element_size()]).sum(dtype=torch.int64)


def over_ranks(counted: Mapping[str, tuple[Tensor, Tensor]], accelerator: Any) -> dict[str, float]:
    """Figures' means over all that the ranks have counted; waits for the device."""
    sums = torch.stack([torch.stack(pair).float() for pair in counted.values()])
    if accelerator.num_processes > 1:
        sums = accelerator.reduce(sums, "sum")
    means = sums[:, 0] / sums[:, 1].clamp_min(1)
    return dict(zip(counted, means.tolist(), strict=True))
