"""A run from pictures to priors: each stage once, each to be stopped and gone on with anywhere.

    stage1 -> model/autoencoder -> codes/ -> prior0 -> model/priors/0 -> prior1 -> ...

What is done is seen from what is there, so repeating the call goes on where it stopped. All is
told to the caller as events; nothing is printed.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vqvae2.autoencoder import VQVAE
from vqvae2.configuration import to_dict, write_json
from vqvae2.data.codes import extract, read_codes
from vqvae2.data.images import PictureData, Pictures
from vqvae2.data.order import spread
from vqvae2.metrics.distortion import figures as distortion_figures
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.likelihood import nats_per_code
from vqvae2.pipeline import (
    FORMAT,
    PipelineConfig,
    load_autoencoder,
    load_prior,
    save_autoencoder,
    save_prior,
)
from vqvae2.priors import Prior, build_prior
from vqvae2.randomness import generator
from vqvae2.sheets import save_png, to_float
from vqvae2.training import checkpoint
from vqvae2.training.config import Run, TrainConfig
from vqvae2.training.loop import State, Task, new_state, train
from vqvae2.training.previews import PREVIEWED, preview_draws, preview_levels
from vqvae2.training.run import RunFolder
from vqvae2.training.stage1 import Stage1
from vqvae2.training.stage2 import PriorLoss, Stage2
from vqvae2.weights import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

MEASURED_AT_ONCE = 128
"""Pictures a pass when measuring; no figure depends on it."""


class Stopped(Exception):
    """Someone asked the run to stop; everything is saved."""


@dataclass(frozen=True)
class Event:
    """What happened: progress of a stage, figures, or a sentence.

    Arguments:
        stage: "stage1", "codes", "prior0", ...
        done, total: steps or pictures.
        figures: of the training step or the held-out set, if any were taken.
        split: whose figures.
        rate: examples a second since the last event that had one.
        text: a sentence for the user.
    """

    stage: str
    done: int = 0
    total: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    split: str = "train"
    rate: float = 0.0
    text: str = ""


@dataclass(frozen=True)
class Job:
    """One call to train a run.

    Arguments:
        folder: where everything goes.
        run: what to compute.
        data: its pictures.
        accelerator: an `accelerate.Accelerator`.
        should_stop: asked after every step; True saves and raises `Stopped`.
    """

    folder: RunFolder
    run: Run
    data: PictureData
    accelerator: Any
    should_stop: Callable[[], bool] = lambda: False

    def train(self, stages: Callable[[str], bool] = lambda stage: True) -> Iterator[Event]:
        """Does all stages that are not done and that `stages` names."""
        self._write_facts()
        if stages("stage1"):
            yield from self._stage1()
        if stages("codes"):
            yield from self._codes()
        for level in range(len(self.run.priors)):
            if stages(f"prior{level}"):
                yield from self._prior(level)

    def _write_facts(self) -> None:
        """The small files that need no training."""
        data, run = self.data, self.run
        facts = {
            "class_names": list(data.class_names),
            "train": len(data.train),
            "held_out": len(data.held_out),
            "skipped": [*data.train.skipped, *data.held_out.skipped],
        }
        config = PipelineConfig(
            image_size=run.data.size, class_names=data.class_names, draws=run.draws
        )
        if self.accelerator.is_main_process:
            self.folder.sweep()
            self.folder.write_data(facts)
            write_json(self.folder.model / "config.json", FORMAT, 1, to_dict(config))

    def _stage1(self) -> Iterator[Event]:
        path = self.folder.model / "autoencoder"
        if self.folder.done("stage1"):
            return
        seed_weights(self.run.seed, "autoencoder")
        model = VQVAE(self.run.autoencoder).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task = Stage1(
            model.to(self.accelerator.device),
            self.data.train,
            self.run.stage1,
            self.run.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )
        held_out = self.data.held_out

        def measure(module: nn.Module) -> dict[str, float]:
            chosen = spread(len(held_out), task.config.validation_examples)
            batches = self._images(held_out, chosen)
            return flat(distortion_figures(measure_distortion(module, batches)))  # type: ignore[arg-type]

        def draw(module: nn.Module) -> "Image":
            chosen = spread(len(held_out), PREVIEWED)
            return preview_levels(module, next(self._images(held_out, chosen)))  # type: ignore[arg-type]

        yield from self._learn("stage1", task, measure, "mse", draw)
        best = self._best("stage1", task)
        if self.accelerator.is_main_process:
            save_autoencoder(path, best)  # type: ignore[arg-type]
        self.accelerator.wait_for_everyone()

    def _codes(self) -> Iterator[Event]:
        autoencoder = load_autoencoder(self.folder.model / "autoencoder")
        autoencoder.to(self.accelerator.device)
        if self.accelerator.is_main_process:
            for split, pictures in [("train", self.data.train), ("held_out", self.data.held_out)]:
                start = time.monotonic()
                for done in extract(autoencoder, pictures, self.folder.codes, split):
                    rate = done / max(1e-9, time.monotonic() - start)
                    yield Event("codes", done, len(pictures), split=split, rate=rate)
                    if self.should_stop():
                        raise Stopped
        self.accelerator.wait_for_everyone()

    def _prior(self, level: int) -> Iterator[Event]:
        path = self.folder.model / "priors" / str(level)
        autoencoder = load_autoencoder(self.folder.model / "autoencoder")
        known = fingerprint(autoencoder)
        if self.folder.done(f"prior{level}"):
            load_prior(path, known)
            return
        codes = read_codes(self.folder.codes, "train", known)
        held_out = read_codes(self.folder.codes, "held_out", known)
        seed_weights(self.run.seed, f"prior{level}")
        prior = build_prior(self.run.priors[level], self.run.domain(level))
        task = Stage2(
            prior.to(self.accelerator.device),
            level,
            codes,
            self.run.stage2[level],
            self.run.seed,
            self.accelerator.process_index,
            self.accelerator.num_processes,
        )

        def measure(module: nn.Module) -> dict[str, float]:
            limit = task.config.validation_examples
            prior = prior_of(module)
            return {"nats_per_code": nats_per_code(prior, level, held_out, limit)}

        decoder = autoencoder.to(self.accelerator.device)

        def draw(module: nn.Module) -> "Image":
            maps, labels = held_out.batch(spread(len(held_out), PREVIEWED))
            return preview_draws(prior_of(module), level, decoder, maps, labels)

        yield from self._learn(f"prior{level}", task, measure, "nats_per_code", draw)
        best = prior_of(self._best(f"prior{level}", task))
        if self.accelerator.is_main_process:
            save_prior(path, best, known)
        self.accelerator.wait_for_everyone()

    def _learn(
        self,
        stage: str,
        task: Task,
        measure: Callable[[nn.Module], dict[str, float]],
        criterion: str,
        draw: Callable[[nn.Module], "Image"],
    ) -> Iterator[Event]:
        """Runs the loop from the newest checkpoint to the last step."""
        config, log = task.config, self.folder.log(stage)
        state, damaged = self._resume(stage, task)
        for problem in damaged.values():
            yield Event(stage, text=f"{problem}; going on from step {state.step}.")
        if self.accelerator.is_main_process:
            log.cut(state.step)
            for path in damaged:
                path.unlink()
        clock = Clock(config.batch)
        for progress in train(task, state, self.accelerator):
            clock.steps += 1
            due = Due(config, state.step)
            figures: dict[str, float] = {}
            if due.log:
                figures = {name: value.item() for name, value in progress.figures.items()}
                require_finite(figures, stage, state.step)
                self._write(log, state.step, "train", figures, clock.rate())
            yield Event(stage, state.step, config.steps, figures, rate=clock.rate())
            if due.validate:
                clock.pause()
                held_out = measure(state.average)
                state.module.train()
                self._write(log, state.step, "held_out", held_out)
                self._keep_best(stage, state, held_out[criterion])
                if self.accelerator.is_main_process:
                    save_png(self.folder.preview(stage, state.step), draw(state.average))
                yield Event(stage, state.step, config.steps, held_out, split="held_out")
                clock.go_on()
            stop = self.should_stop()
            if due.save or stop:
                clock.pause()
                self._save(stage, state)
                clock.go_on()
            if stop and state.step < config.steps:
                raise Stopped

    def _resume(self, stage: str, task: Task) -> tuple[State, dict[Path, str]]:
        """The newest whole state of `stage`, or a new one, and the damaged files after it."""
        state = new_state(task)
        saved, damaged = checkpoint.latest(self.folder.checkpoints(stage))
        if saved is not None:
            state.load(saved)
        return state, damaged

    def _save(self, stage: str, state: State) -> None:
        if self.accelerator.is_main_process:
            folder = self.folder.checkpoints(stage)
            checkpoint.save(folder, state.step, state.tensors(), state.notes)

    def _keep_best(self, stage: str, state: State, value: float) -> None:
        """Keeps the averaged weights if no earlier look at held-out examples was better."""
        if value > state.notes.get("best", float("inf")):
            return
        state.notes["best"] = value
        if self.accelerator.is_main_process:
            path = self.folder.checkpoints(stage) / "best.safetensors"
            checkpoint.write_state(path, state.step, state.average.state_dict(), {"best": value})

    def _best(self, stage: str, task: Task) -> nn.Module:
        """The task's module with the best averaged weights."""
        saved = checkpoint.read_state(self.folder.checkpoints(stage) / "best.safetensors")
        task.module.load_state_dict(saved.tensors)
        return task.module.eval()

    def _write(
        self, log: Any, step: int, split: str, figures: Mapping[str, float], rate: float = 0.0
    ) -> None:
        if not self.accelerator.is_main_process:
            return
        log.write(step, split, figures)
        if rate:
            log.write_timing(step, {"examples_per_second": rate})
        stage = log.path.stem
        self.accelerator.log({f"{stage}/{split}/{n}": v for n, v in figures.items()}, step)

    def _images(self, pictures: Pictures, indices: torch.Tensor) -> Iterator[torch.Tensor]:
        """Pictures in [0, 1] on the device, in batches."""
        for part in indices.split(MEASURED_AT_ONCE):
            yield to_float(pictures.batch(part).to(self.accelerator.device))


class Due:
    """What is due after a step."""

    def __init__(self, config: TrainConfig, step: int) -> None:
        last = step == config.steps
        self.log = last or step % config.log_every == 0
        self.validate = last or step % config.validate_every == 0
        self.save = last or step % config.save_every == 0


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


def prior_of(module: nn.Module) -> Prior:
    """The prior inside a task's module."""
    assert isinstance(module, PriorLoss)
    return module.eval().prior


def seed_weights(seed: int, name: str) -> None:
    """Makes the first weights of a model a function of (seed, name); layers take no generator."""
    torch.manual_seed(generator("weights", seed, name).initial_seed())


def flat(figures: Mapping[str, Any]) -> dict[str, float]:
    """Lists as `name.0`, `name.1`, ..., coarsest first."""
    lists = {k: v if isinstance(v, list) else None for k, v in figures.items()}
    return {
        **{name: value for name, value in figures.items() if lists[name] is None},
        **{f"{n}.{i}": v for n, items in lists.items() for i, v in enumerate(items or [])},
    }


def require_finite(figures: Mapping[str, float], stage: str, step: int) -> None:
    """Stops a run whose loss is no number before it is saved."""
    broken = [name for name, value in figures.items() if value - value != 0]
    if broken:
        raise FloatingPointError(
            f"{stage} has {', '.join(broken)} = {figures[broken[0]]} at step {step}; the last "
            "checkpoint is kept. Try a smaller learning rate."
        )
