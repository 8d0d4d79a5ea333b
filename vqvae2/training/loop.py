"""The loop of both stages: it learns; the caller logs, saves, draws.

What is learnt is a `Task`. Order and noise are functions of (seed, step, rank) inside it, so a
`State` holds weights, their average, the optimizer and the step, and nothing about randomness.
"""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as checkpoint_layer

from vqvae2.distributed import World
from vqvae2.runs.config import TrainingConfig
from vqvae2.training import checkpoint


@dataclass(frozen=True)
class Loss:
    """What a task makes of a part of a batch.

    Arguments:
        value: what is minimised, a scalar.
        figures: for the log, detached: (sum, count) each, so that parts add up to their batch.
        learnt: whatever the task's `after_step` needs of this part.
    """

    value: Tensor
    figures: Mapping[str, tuple[Tensor, Tensor]]
    learnt: Any = None


class Task(Protocol):
    """A model to train and how: `Stage1` or `Stage2`."""

    config: TrainingConfig

    @property
    def module(self) -> nn.Module:
        """The module that learns."""

    def batch(self, step: int) -> list[Any]:
        """This rank's examples of `step`, in `config.accumulate` parts, on the CPU."""

    def before_step(self, step: int) -> None:
        """Called with the module about to take step `step`."""

    def loss(self, module: Callable[..., Any], part: Any, step: int) -> Loss:
        """The loss of one part."""

    def after_step(self, parts: list[Any], step: int) -> None:
        """Called with what each part's `Loss.learnt` held, after the optimizer's step."""

    def names(self, step: int) -> list[str]:
        """What this rank's examples of `step` are called in messages."""


@dataclass
class State:
    """Everything that training changes.

    Arguments:
        module: the model that learns.
        average: the moving average of its weights, with its current buffers.
        optimizer: Adam over the module's parameters.
        step: steps done.
        notes: numbers that the caller keeps with the state (best figure so far).
    """

    module: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    step: int
    notes: dict[str, float]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        model = {f"model.{name}": value for name, value in self.module.state_dict().items()}
        average = {f"average.{name}": value for name, value in self.average.state_dict().items()}
        return {**model, **average, **checkpoint.optimizer_tensors(self.optimizer)}

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Takes a saved state over."""
        for prefix, module in [("model.", self.module), ("average.", self.average)]:
            names = [name for name in saved.tensors if name.startswith(prefix)]
            module.load_state_dict({n.removeprefix(prefix): saved.tensors[n] for n in names})
        checkpoint.load_optimizer(self.optimizer, saved.tensors)
        self.step, self.notes = saved.step, dict(saved.notes)


@dataclass(frozen=True)
class Progress:
    """Yielded after each step.

    Arguments:
        step: steps done.
        counted: figures of the step on this rank as (sum, count), so that ranks add up; still on
            the device: reading one waits for it.
        skipped: whether its gradient was no number and it was left out.
    """

    step: int
    counted: Mapping[str, tuple[Tensor, Tensor]]
    skipped: bool = False

    @property
    def figures(self) -> dict[str, Tensor]:
        """Each figure's mean on this rank."""
        return {name: total / count.clamp_min(1) for name, (total, count) in self.counted.items()}


def new_state(task: Task) -> State:
    """The state before the first step."""
    module, optimizer = task.module, new_optimizer(task.module, task.config)
    average = copy.deepcopy(module).requires_grad_(False).eval()
    if task.config.recompute:
        recompute_layers(module)  # after the copy, which has no gradient to compute for
    return State(module, average, optimizer, 0, {})


def new_optimizer(module: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Adam; with `shard_optimizer` each of several ranks keeps a part of its state."""
    parameters, rate, betas = module.parameters(), config.learning_rate, (0.9, 0.999)
    if not (config.shard_optimizer and World.current().size > 1):
        return torch.optim.Adam(parameters, lr=rate, fused=True, betas=betas)
    with warnings.catch_warnings():
        # Importing it compiles scripts, which torch itself calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(parameters, torch.optim.Adam, lr=rate, fused=True, betas=betas)


def train(task: Task, state: State, accelerator: Any) -> Iterator[Progress]:
    """Trains from `state.step` to `task.config.steps`, yielding after every step.

    Arguments:
        accelerator: an `accelerate.Accelerator`; its process count, device and precision are used.
    """
    config = task.config
    if config.compile:
        state.module.compile()
    module = distributed(state.module, accelerator)
    parameters = list(state.module.parameters())
    state.module.train()
    with ThreadPoolExecutor(1) as ahead:
        let_compute_alone(ahead)
        coming = ahead.submit(task.batch, state.step)
        while state.step < config.steps:
            parts = coming.result()
            if state.step + 1 < config.steps:
                coming = ahead.submit(task.batch, state.step + 1)
            task.before_step(state.step)
            losses = []
            for number, part in enumerate(parts):
                last = number == len(parts) - 1
                with accelerator.autocast(), sync_only_if(last, accelerator, module):
                    loss = task.loss(module, to_device(part, accelerator.device), state.step)
                    accelerator.backward(loss.value / len(parts))
                losses.append(loss)
            norm = torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
            if may_skip(state, config, norm):
                state.optimizer.zero_grad()
                state.step += 1
                yield Progress(state.step, {}, skipped=True)
                continue
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(config, state.step)
            state.optimizer.step()
            state.optimizer.zero_grad()
            task.after_step([loss.learnt for loss in losses], state.step)
            update_average(state, config.average_decay)
            state.step += 1
            counted = add_figures([loss.figures for loss in losses])
            counted["gradient_norm"] = norm.detach(), torch.ones_like(norm)
            yield Progress(state.step, counted)


def let_compute_alone(thread: ThreadPoolExecutor) -> None:
    """Makes a pool of one thread compute without others.

    With a team of OpenMP threads of its own there would be more of them than cores, and all of
    them, those of the training too, would sleep at every barrier instead of spinning: a step of
    64x64 images on two cores takes 81 ms instead of 61 (docs/log.md).
    """
    threads = torch.get_num_threads()
    thread.submit(torch.get_num_threads).result()  # which would set the number later
    thread.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)  # the matrix library has one number for all threads


def may_skip(state: State, config: TrainingConfig, norm: Tensor) -> bool:
    """Whether a step is to be left out: its gradient is no number, and some may be."""
    skipped = state.notes.get("skipped", 0)
    if skipped >= config.skip_not_finite or bool(torch.isfinite(norm)):
        return False
    state.notes["skipped"] = skipped + 1
    return True


def recompute_layers(module: nn.Module) -> None:
    """Makes the layers in the module's lists compute again what their gradients need."""
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            recompute_layers(child)
            continue
        for layer in child:
            layer.forward = partial(checkpoint_layer, layer.forward, use_reentrant=False)


def distributed(module: nn.Module, accelerator: Any) -> nn.Module:
    """The module as ranks share it; itself where there is one rank."""
    with warnings.catch_warnings():
        # Its new name still broadcasts at the start, which torch's own warning advises against.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        shared: nn.Module = accelerator.prepare_model(module)
    return shared


def sync_only_if(last: bool, accelerator: Any, module: nn.Module) -> Any:
    """Ranks exchange gradients with the last part only."""
    return contextlib.nullcontext() if last else accelerator.no_sync(module)


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Rises over the warm-up, stays, falls to 0 over the cool-down."""
    rising = (step + 1) / (config.warmup_steps + 1)
    cooling = max(1, round(config.steps * config.cooldown))
    falling = (config.steps - step) / cooling
    return config.learning_rate * min(1.0, rising, falling)


@torch.no_grad()
def update_average(state: State, decay: float) -> None:
    """Moves the average towards the weights, faster at first; buffers are taken over."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    averages: list[Tensor] = list(state.average.parameters())
    weights: list[Tensor] = list(state.module.parameters())
    torch._foreach_lerp_(averages, weights, 1 - decay)
    for average, buffer in zip(state.average.buffers(), state.module.buffers(), strict=True):
        average.copy_(buffer)


def add_figures(
    parts: list[Mapping[str, tuple[Tensor, Tensor]]],
) -> dict[str, tuple[Tensor, Tensor]]:
    """Each figure's sum and count over the parts of a batch."""
    added = {}
    for name in parts[0]:
        sums, counts = zip(*(part[name] for part in parts), strict=True)
        added[name] = torch.stack(sums).sum(), torch.stack(counts).sum()
    return added


def to_device(value: Any, device: torch.device) -> Any:
    """Moves the tensors in a tuple or list."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    return type(value)(to_device(item, device) for item in value)
