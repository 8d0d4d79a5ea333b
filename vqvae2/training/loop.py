"""The training loop: it optimizes; the caller logs, saves and draws previews.

A `Task` is what is trained. Each of its phases has one module, one loss and one optimizer; a plain
model has one phase, an adversarial one has two. The order of examples and all noise are functions
of (seed, step, rank) inside the task, so a `TrainingState` holds weights, their averages,
optimizers and the step, and nothing about random numbers.
"""

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from vqvae2.distributed import all_reduce_
from vqvae2.nn.recompute import recompute_blocks
from vqvae2.precision import FixedPrecision, autocast
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.loss_scale import LossScale, restore_where, tensors_beside_optimizers
from vqvae2.training.optimizers import new_optimizers
from vqvae2.training.prefetch import batches_ahead
from vqvae2.transfers import to_device

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
        training: optimizer, learning rate, clipping and averaging.
        averaged: whether a moving average of the weights is kept.
        hidden: the part of the module whose matrices the optimizer muon updates.
        start: the first step of the phase; its warm-up begins there.
    """

    name: str
    module: nn.Module
    loss: Callable[[nn.Module, Part, int], Loss[Output]]
    training: TrainingConfig
    averaged: bool = True
    hidden: nn.Module | None = None
    start: int = 0


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
    """What training changes in one phase.

    Arguments:
        phase: with the module.
        average: of the weights, if one is kept.
        optimizers: of the module's parameters.
        scale: of the loss, in float16.
    """

    phase: Phase[Any, Any]
    average: nn.Module | None
    optimizers: list[torch.optim.Optimizer]
    scale: LossScale | None = None

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
        precision: of the products, see `vqvae2.precision`; the same from the first step to the
            last.
    """

    phases: dict[str, PhaseState]
    step: int = 0
    notes: dict[str, float] = field(default_factory=dict)
    precision: FixedPrecision = "float32"

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
            Of steps that a loss scale skips the host knows nothing: the metrics count them.
    """

    step: int
    sums: MetricSums
    skipped: bool = False

    @property
    def metrics(self) -> dict[str, Tensor]:
        """The mean of each metric on this process."""
        return {name: total / count.clamp_min(1) for name, (total, count) in self.sums.items()}


def new_state(task: Task[Part, Output], precision: FixedPrecision = "float32") -> TrainingState:
    """The state before the first step, for training in a precision."""
    phases = {}
    for phase in task.phases:
        assert phase.name not in phases, "phases of a task have different names"
        optimizers = new_optimizers(phase.module, phase.training, phase.hidden)
        average = None
        if phase.averaged:
            average = copy.deepcopy(phase.module).requires_grad_(False).eval()
        if phase.training.recompute:
            recompute_blocks(phase.module)  # after the copy, which computes no gradient
        scale = None
        if precision == "float16":
            if phase.training.optimizer == "muon":
                raise ValueError(
                    "The optimizer muon cannot skip a step on the device, which float16 needs; "
                    "use the precision bfloat16 or float32, or the optimizer adamw."
                )
            scale = LossScale(next(phase.module.parameters()).device)
        phases[phase.name] = PhaseState(phase, average, optimizers, scale)
    return TrainingState(phases, precision=precision)


def train(
    task: Task[Part, Output], state: TrainingState, accelerator: "Accelerator"
) -> Generator[Progress]:
    """Trains from `state.step` to `task.training.steps`, yielding after every step.

    Arguments:
        accelerator: its processes and device are used.
    """
    step = TrainingStep(task, state, accelerator)
    steps = range(state.step, task.training.steps)
    for parts in batches_ahead(task.batch, steps, accelerator.device):
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
        self.skipped: Tensor | None = None
        if state.precision == "float16":
            self.skipped = torch.zeros((), dtype=torch.bool, device=accelerator.device)
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
        if self.skipped is not None:
            self.skipped = torch.zeros_like(self.skipped)
        for phase, module in self.shared:
            if self.state.step < phase.start:
                continue
            losses = self.update_phase(phase, module, parts, sums)
            if losses is None:
                return None
            outputs = outputs or [loss.output for loss in losses]
        self.after_step(outputs or [])
        for state in self.state.phases.values():
            update_average(state, self.state.step, self.skipped)
        return sums

    def after_step(self, outputs: list[Output]) -> None:
        """What the task adds to a step; undone on the device where a loss scale skipped it."""
        if self.skipped is None:
            self.task.after_step(outputs, self.state.step)
            return
        modules = (phase.module for phase, _ in self.shared)
        tensors = [tensor for module in modules for tensor in tensors_beside_optimizers(module)]
        before = [tensor.clone() for tensor in tensors]
        self.task.after_step(outputs, self.state.step)
        restore_where(self.skipped, tensors, before)

    def update_phase(
        self,
        phase: Phase[Part, Output],
        module: nn.Module,
        parts: Sequence[Part],
        sums: dict[str, tuple[Tensor, Tensor]],
    ) -> list[Loss[Output]] | None:
        """Updates one module and adds its metrics to `sums`; None for a skipped gradient."""
        training, step = phase.training, self.state.step
        optimizers = self.state.phases[phase.name].optimizers
        scale = self.state.phases[phase.name].scale
        zero_gradients(optimizers)  # those that other phases' losses left here
        losses = self.backward(phase, module, parts)
        if scale is not None:
            scale.unscale(phase.module.parameters())
        norm = nn.utils.clip_grad_norm_(phase.module.parameters(), training.clip_norm)
        decisive = norm
        if scale is not None and training.max_skipped_steps:
            # A loss scale skips infinite gradients itself, but cannot help an infinite loss.
            decisive = joint_loss(losses)
        if may_skip(self.state, training, decisive):
            zero_gradients(optimizers)
            return None
        set_learning_rate(optimizers, learning_rate(training, step, phase.start))
        metrics = add_sums([loss.metrics for loss in losses])
        if scale is None or self.skipped is None:
            for optimizer in optimizers:
                optimizer.step()
            metrics[f"gradient_norm.{phase.name}"] = norm.detach(), torch.ones_like(norm)
        else:
            self.skipped = scale.step(optimizers, norm, self.skipped)
            metrics |= scale.metrics(phase.name, norm)
        zero_gradients(optimizers)
        assert not metrics.keys() & sums.keys(), "phases log different metrics"
        sums |= metrics
        return losses

    def backward(
        self, phase: Phase[Part, Output], module: nn.Module, parts: Sequence[Part]
    ) -> list[Loss[Output]]:
        """The losses of all parts of a batch; their gradients add up in the parameters."""
        losses, accelerator = [], self.accelerator
        precision, scale = self.state.precision, self.state.phases[phase.name].scale
        for number, part in enumerate(parts):
            # Processes exchange gradients with the last part only.
            is_last = number == len(parts) - 1
            exchange = contextlib.nullcontext() if is_last else accelerator.no_sync(module)
            with exchange:
                with autocast(precision, accelerator.device):
                    loss = phase.loss(module, to_device(part, accelerator.device), self.state.step)
                value = loss.value / len(parts)
                accelerator.backward(value if scale is None else value * scale.scale)
            losses.append(loss)
        return losses


def may_skip(state: TrainingState, training: TrainingConfig, value: Tensor) -> bool:
    """Whether to skip a step: a scalar of it is NaN or infinite, and some skips are allowed."""
    skipped = state.notes.get("skipped", 0)
    if skipped >= training.max_skipped_steps or bool(torch.isfinite(value)):
        return False
    state.notes["skipped"] = skipped + 1
    return True


def joint_loss(losses: Sequence[Loss[Output]]) -> Tensor:
    """The sum of the losses of all parts and processes: NaN or infinite if one of them is."""
    total = torch.stack([loss.value.detach().float() for loss in losses]).sum()
    all_reduce_(total)
    return total


def shared_module(module: nn.Module, accelerator: "Accelerator") -> nn.Module:
    """The module as processes share it; itself on a single process."""
    with warnings.catch_warnings():
        # Its new name still broadcasts at the start, which torch's own warning advises against.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return accelerator.prepare_model(module)


def learning_rate(training: TrainingConfig, step: int, start: int = 0) -> float:
    """Rises over the warm-up from step `start`, stays, falls to 0 over the cool-down."""
    rising = (step - start + 1) / (training.warmup_steps + 1)
    cooling = max(1, round(training.steps * training.cooldown))
    falling = (training.steps - step) / cooling
    if training.cooldown_shape == "cosine":
        falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, falling))
    return training.learning_rate * min(1.0, rising, falling)


def set_learning_rate(optimizers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Sets the learning rate of all parameters."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate


def zero_gradients(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Drops the gradients of all parameters."""
    for optimizer in optimizers:
        optimizer.zero_grad()


@torch.no_grad()
def update_average(state: PhaseState, step: int, skipped: Tensor | None = None) -> None:
    """Moves the average towards the weights, faster at first; buffers are copied.

    Arguments:
        skipped: whether a loss scale skipped the step, a boolean scalar on the device.
    """
    if state.average is None:
        return
    decay = min(state.phase.training.average_decay, (1 + step) / (10 + step))
    averages: list[Tensor] = list(state.average.parameters())
    weights: list[Tensor] = list(state.module.parameters())
    if skipped is None:
        torch._foreach_lerp_(averages, weights, 1 - decay)
    else:
        changes = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(changes, ~skipped * (1 - decay))
        torch._foreach_add_(averages, changes)
    for average, buffer in zip(state.average.buffers(), state.module.buffers(), strict=True):
        average.copy_(buffer)


def add_sums(parts: Sequence[MetricSums]) -> dict[str, tuple[Tensor, Tensor]]:
    """Each metric's sum and count over the parts of a batch."""
    added = {}
    for name in parts[0]:
        sums, counts = zip(*(part[name] for part in parts), strict=True)
        added[name] = torch.stack(sums).sum(), torch.stack(counts).sum()
    return added
