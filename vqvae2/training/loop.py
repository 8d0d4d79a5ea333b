"""The training loop: it optimizes; the caller logs, saves and draws previews.

A `Task` is what is trained. Each of its phases has one module, one loss and one optimizer; a plain
model has one phase, an adversarial one has two. The order of examples and all noise are functions
of (seed, step, rank) inside the task, so a `TrainingState` holds weights, their averages,
optimizers and the step, and nothing about random numbers.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vqvae2.distributed import World
from vqvae2.nn.recompute import recompute_blocks
from vqvae2.runs.config import TrainingConfig
from vqvae2.transfers import pin, to_device

if TYPE_CHECKING:
    from accelerate import Accelerator

Part = TypeVar("Part")
Output = TypeVar("Output")

MetricSums = Mapping[str, tuple[Tensor, Tensor]]
"""Metrics as (sum, count) of scalars on the device, so that parts and processes add up."""


@dataclass(frozen=True)
class Loss(Generic[Output]):
    """What a phase computes from a part of a batch.

    Arguments:
        value: what is minimised, a scalar.
        metrics: for the log, detached.
        output: what the task's `after_step` needs of this part.
    """

    value: Tensor
    metrics: MetricSums
    output: Output


@dataclass(frozen=True)
class Phase(Generic[Part, Output]):
    """One optimizer's share of a training step.

    Arguments:
        name: unique in the task; part of the names in checkpoints.
        module: its parameters are updated.
        loss: the loss of a part at a step; the module comes as processes share it.
        training: learning rate, clipping and averaging.
        averaged: whether a moving average of the weights is kept.
    """

    name: str
    module: nn.Module
    loss: Callable[[nn.Module, Part, int], Loss[Output]]
    training: TrainingConfig
    averaged: bool = True


class Task(Protocol[Part, Output]):
    """What is trained, and on what; its first phase trains the model that the stage is about."""

    @property
    def training(self) -> TrainingConfig:
        """Steps, batches, validation and checkpoints."""
        ...

    @property
    def phases(self) -> Sequence[Phase[Part, Output]]:
        """What each step does, in order."""
        ...

    def batch(self, step: int) -> list[Part]:
        """This process's examples of `step`, in `training.accumulate` parts, on the CPU."""
        ...

    def before_step(self, step: int) -> None:
        """Called before step `step`."""

    def after_step(self, outputs: list[Output], step: int) -> None:
        """Called after the last optimizer's update with the first phase's output of each part."""

    def example_names(self, step: int) -> list[str]:
        """What this process's examples of `step` are called in messages."""
        ...


@dataclass
class PhaseState:
    """What training changes in one phase: module, average if one is kept, and optimizer."""

    phase: Phase[Any, Any]
    average: nn.Module | None
    optimizer: torch.optim.Optimizer

    @property
    def module(self) -> nn.Module:
        """The module that is trained."""
        return self.phase.module


@dataclass
class TrainingState:
    """Everything that training changes.

    Arguments:
        phases: by name, in order.
        step: completed steps.
        notes: numbers that the caller keeps with the state, such as the best metric so far.
    """

    phases: dict[str, PhaseState]
    step: int = 0
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def average(self) -> nn.Module:
        """The averaged model of the first phase, which is validated."""
        average = next(iter(self.phases.values())).average
        assert average is not None, "a task's first phase keeps an average"
        return average

    def averages(self) -> dict[str, nn.Module]:
        """All averaged models by the name of their phase."""
        pairs = ((name, phase.average) for name, phase in self.phases.items())
        return {name: average for name, average in pairs if average is not None}


@dataclass(frozen=True)
class Progress:
    """Yielded after each step.

    Arguments:
        step: completed steps.
        sums: metrics of the step on this process, still on the device: reading one waits for it.
        skipped: whether a gradient was NaN or infinite; its phase and later ones were not updated.
    """

    step: int
    sums: MetricSums
    skipped: bool = False

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The mean of each metric on this process."""
        return {name: total / count.clamp_min(1) for name, (total, count) in self.sums.items()}


def new_state(task: Task[Part, Output]) -> TrainingState:
    """The state before the first step."""
    phases = {}
    for phase in task.phases:
        assert phase.name not in phases, "phases of a task have different names"
        optimizer = new_optimizer(phase.module, phase.training)
        average = None
        if phase.averaged:
            average = copy.deepcopy(phase.module).requires_grad_(False).eval()
        if phase.training.recompute:
            recompute_blocks(phase.module)  # after the copy, which computes no gradient
        phases[phase.name] = PhaseState(phase, average, optimizer)
    return TrainingState(phases)


def new_optimizer(module: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; with `shard_optimizer` each of several processes keeps a part of its state."""
    parameters, rate, betas = module.parameters(), training.learning_rate, (0.9, 0.999)
    if not training.shard_optimizer or World.current().size == 1:
        return torch.optim.Adam(parameters, lr=rate, fused=True, betas=betas)
    with warnings.catch_warnings():
        # Importing it compiles scripts, which torch itself calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=rate, fused=True, betas=betas)


def train(
    task: Task[Part, Output], state: TrainingState, accelerator: "Accelerator"
) -> Iterator[Progress]:
    """Trains from `state.step` to `task.training.steps`, yielding after every step.

    Arguments:
        accelerator: its processes, device and precision are used.
    """
    step = TrainingStep(task, state, accelerator)
    for parts in batches_ahead(task, state.step, accelerator.device):
        task.before_step(state.step)
        sums = step.update(parts)
        state.step += 1
        yield Progress(state.step, sums or {}, skipped=sums is None)


class TrainingStep(Generic[Part, Output]):
    """The updates of one step: of every phase in order, of what the task adds, of the averages."""

    def __init__(
        self, task: Task[Part, Output], state: TrainingState, accelerator: "Accelerator"
    ) -> None:
        self.task, self.state, self.accelerator = task, state, accelerator
        self.shared = []
        for phase in task.phases:
            if phase.training.compile:
                phase.module.compile()
            self.shared.append((phase, shared_module(phase.module, accelerator)))
            phase.module.train()

    def update(self, parts: Sequence[Part]) -> MetricSums | None:
        """The metrics of the step; None where a gradient is NaN or infinite and may be skipped."""
        sums: dict[str, tuple[Tensor, Tensor]] = {}
        outputs: list[Output] | None = None
        for phase, module in self.shared:
            losses = self.update_phase(phase, module, parts, sums)
            if losses is None:
                return None
            outputs = outputs or [loss.output for loss in losses]
        self.task.after_step(outputs or [], self.state.step)
        for state in self.state.phases.values():
            update_average(state, self.state.step)
        return sums

    def update_phase(
        self,
        phase: Phase[Part, Output],
        module: nn.Module,
        parts: Sequence[Part],
        sums: dict[str, tuple[Tensor, Tensor]],
    ) -> list[Loss[Output]] | None:
        """Updates one module and adds its metrics to `sums`; None for a skipped gradient."""
        training, step = phase.training, self.state.step
        optimizer = self.state.phases[phase.name].optimizer
        optimizer.zero_grad()  # of gradients that other phases' losses left here
        losses = self.backward(phase, module, parts)
        norm = nn.utils.clip_grad_norm_(phase.module.parameters(), training.clip_norm)
        if may_skip(self.state, training, norm):
            optimizer.zero_grad()
            return None
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        optimizer.step()
        optimizer.zero_grad()
        metrics = add_sums([loss.metrics for loss in losses])
        metrics[f"gradient_norm.{phase.name}"] = norm.detach(), torch.ones_like(norm)
        assert not metrics.keys() & sums.keys(), "phases log different metrics"
        sums |= metrics
        return losses

    def backward(
        self, phase: Phase[Part, Output], module: nn.Module, parts: Sequence[Part]
    ) -> list[Loss[Output]]:
        """The losses of all parts of a batch; their gradients add up in the parameters."""
        losses, accelerator = [], self.accelerator
        for number, part in enumerate(parts):
            # Processes exchange gradients with the last part only.
            is_last = number == len(parts) - 1
            exchange = contextlib.nullcontext() if is_last else accelerator.no_sync(module)
            with accelerator.autocast(), exchange:
                loss = phase.loss(module, to_device(part, accelerator.device), self.state.step)
                accelerator.backward(loss.value / len(parts))
            losses.append(loss)
        return losses


def batches_ahead(
    task: Task[Part, Output], first: int, device: torch.device
) -> Iterator[list[Part]]:
    """The batches of all steps from `first` on, each prepared while the one before is used.

    They are on the CPU; for a GPU they are pinned, so that their copies to it are asynchronous.
    """
    steps = task.training.steps

    def prepare(step: int) -> list[Part]:
        parts = task.batch(step)
        return pin(parts) if device.type == "cuda" else parts

    with ThreadPoolExecutor(1) as thread:
        use_one_thread(thread)
        pending = thread.submit(prepare, first)
        for step in range(first, steps):
            parts = pending.result()
            if step + 1 < steps:
                pending = thread.submit(prepare, step + 1)
            yield parts


def use_one_thread(thread: ThreadPoolExecutor) -> None:
    """Makes a pool of one thread compute without further threads.

    With an OpenMP team of its own there would be more threads than cores, and all of them, those
    of the training too, would sleep at every barrier instead of spinning: a step of 64x64 images
    on two cores takes 81 ms instead of 61 (docs/log.md).
    """
    threads = torch.get_num_threads()
    thread.submit(torch.get_num_threads).result()  # which would set the number later
    thread.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)  # the matrix library has one number for all threads


def may_skip(state: TrainingState, training: TrainingConfig, norm: Tensor) -> bool:
    """Whether to skip a step: its gradient is NaN or infinite, and some skips are allowed."""
    skipped = state.notes.get("skipped", 0)
    if skipped >= training.max_skipped_steps or bool(torch.isfinite(norm)):
        return False
    state.notes["skipped"] = skipped + 1
    return True


def shared_module(module: nn.Module, accelerator: "Accelerator") -> nn.Module:
    """The module as processes share it; itself on a single process."""
    with warnings.catch_warnings():
        # Its new name still broadcasts at the start, which torch's own warning advises against.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return accelerator.prepare_model(module)


def learning_rate(training: TrainingConfig, step: int) -> float:
    """Rises over the warm-up, stays, falls to 0 over the cool-down."""
    rising = (step + 1) / (training.warmup_steps + 1)
    cooling = max(1, round(training.steps * training.cooldown))
    falling = (training.steps - step) / cooling
    return training.learning_rate * min(1.0, rising, falling)


@torch.no_grad()
def update_average(state: PhaseState, step: int) -> None:
    """Moves the average towards the weights, faster at first; buffers are copied."""
    if state.average is None:
        return
    decay = min(state.phase.training.average_decay, (1 + step) / (10 + step))
    averages: list[Tensor] = list(state.average.parameters())
    weights: list[Tensor] = list(state.module.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
    for average, buffer in zip(state.average.buffers(), state.module.buffers(), strict=True):
        average.copy_(buffer)


def add_sums(parts: Sequence[MetricSums]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each metric's sum and count over the parts of a batch."""
    added = {}
    for name in parts[0]:
        sums, counts = zip(*(part[name] for part in parts), strict=True)
        added[name] = torch.stack(sums).sum(), torch.stack(counts).sum()
    return added
