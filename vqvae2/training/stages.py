"""A run from images to priors: each stage once, each to be stopped and gone on with anywhere.

    stage1 -> model/autoencoder -> codes/ -> prior0 -> model/priors/0 -> prior1 -> ...

What is done is seen from what is there, so repeating the call goes on where it stopped. All is
told to the caller as events; nothing is printed.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from vqvae2.autoencoder.pixels import Pixels, PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig
from vqvae2.configuration import to_dict
from vqvae2.data.augmentation import AugmentedImages
from vqvae2.data.codes import CodeDataset, open_codes
from vqvae2.data.extraction import (
    describe_codes,
    extract_shard,
    num_shards,
    remove_other_shards,
    shard_path,
    shard_range,
)
from vqvae2.data.images import ImageDataset, ImageSplits
from vqvae2.data.order import evenly_spaced
from vqvae2.data.pixels import PixelCodes
from vqvae2.distributed import World
from vqvae2.files import write_json
from vqvae2.imaging.previews import PREVIEWED, preview_levels, preview_samples
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
from vqvae2.priors import Prior
from vqvae2.randomness import generator
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training.autoencoder_task import AutoencoderTask, require_batch
from vqvae2.training.fit import Event, Stopped, TrainingJob, fit, on_any_rank, require_same
from vqvae2.training.prior_task import PriorLoss, PriorTask
from vqvae2.weights import fingerprint

if TYPE_CHECKING:
    from PIL.Image import Image

SHARED = {"broadcast_buffers": False, "gradient_as_bucket_view": True}
"""Of a module on several ranks. Buffers are codebooks: every rank moves them itself. Gradients lie
where they are exchanged, once."""


@dataclass(frozen=True)
class Job:
    """One call to train a run.

    Arguments:
        folder: where everything goes.
        run: what to compute.
        data: its images.
        accelerator: an `accelerate.Accelerator`, see `new_accelerator`.
        should_stop: asked after every step; True saves and raises `Stopped`.
    """

    folder: RunFolder
    run: RunConfig
    data: ImageSplits
    accelerator: Any
    should_stop: Callable[[], bool] = lambda: False

    @property
    def world(self) -> World:
        """Those that train, as they share other work."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return World(rank, world, str(self.accelerator.device))

    @property
    def augmentation(self) -> AugmentedImages:
        """The training images as they become codes."""
        return AugmentedImages(self.data.train, self.run.augmentation, self.run.seed)

    def train(self, stages: Callable[[str], bool] = lambda stage: True) -> Iterator[Event]:
        """Does all stages that are not done and that `stages` names."""
        with self.folder.lock() if self.accelerator.is_main_process else nullcontext():
            yield from self._stages(stages)

    def _stages(self, stages: Callable[[str], bool]) -> Iterator[Event]:
        self.begin()
        told = set(self.skipped)
        if stages("stage1") and not self.folder.done("stage1"):
            yield from self._stage1()
            yield from self._tell_skipped("stage1", told)
        if stages("codes"):
            yield from self._codes()
            yield from self._tell_skipped("codes", told)
        for level in range(len(self.run.priors)):
            if stages(f"prior{level}"):
                yield from self._prior(level)

    @property
    def skipped(self) -> list[str]:
        """The names of the images that this rank could not read so far."""
        return [*self.data.train.skipped, *self.data.validation.skipped]

    def _tell_skipped(self, stage: str, told: set[str]) -> Iterator[Event]:
        """A sentence if a rank met images that cannot be read, for which others stood in."""
        from accelerate.utils import gather_object

        new = sorted({*gather_object(self.skipped)} - told)
        if not new:
            return
        told |= {*new}
        if self.accelerator.is_main_process:
            self.folder.write_skipped(new)
        few = ", ".join(new[:3]) + (", ..." if len(new) > 3 else "")
        text = f"{len(new):,} of the images could not be read: {few}; others stood in for them."
        yield Event(stage, text=f"{text} All are named in {self.folder.path / 'data.json'}.")

    def begin(self) -> None:
        """Looks for what would fail later, then writes the small files that need no training."""
        self.run.check()
        for train in self.run.trainings().values():
            require_batch(len(self.data.train), train, self.accelerator.num_processes)
        if self.accelerator.is_main_process:
            self.folder.sweep()
            self.folder.create(self.run, self._facts())
            pipeline = PipelineConfig(
                image_size=self.run.data.size,
                class_names=self.data.class_names,
                sampling=self.run.sampling,
            )
            write_json(self.folder.model / "config.json", FORMAT, 1, to_dict(pipeline))
            if isinstance(self.run.autoencoder, PixelsConfig):
                # Nothing is to be learnt of it: here, before the ranks go their ways.
                pixels = Pixels(self.run.autoencoder)
                save_autoencoder(self.folder.model / "autoencoder", pixels)
        self.accelerator.wait_for_everyone()
        done = [int(self.folder.done(stage)) for stage in self.run.trainings()]
        require_same(done, self.accelerator)

    def _facts(self) -> dict[str, Any]:
        data = self.data
        return {
            "class_names": list(data.class_names),
            "train": len(data.train),
            "validation": len(data.validation),
            "train_fingerprint": data.train.fingerprint(),
            "validation_fingerprint": data.validation.fingerprint(),
            "skipped": self.skipped,
        }

    def _stage1(self) -> Iterator[Event]:
        device, validation = self.accelerator.device, self.data.validation
        seed_weights(self.run.seed, "autoencoder")
        assert isinstance(self.run.autoencoder, VQVAEConfig)
        assert self.run.stage1 is not None
        model = VQVAE(self.run.autoencoder).to(device)
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        task = AutoencoderTask(
            module=model,
            dataset=self.data.train,
            config=self.run.stage1,
            seed=self.run.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

        def measure(module: nn.Module) -> dict[str, float]:
            assert isinstance(module, VQVAE)
            chosen = self.world.shard(
                evenly_spaced(len(validation), task.config.validation_examples)
            )
            images = validation.batches(chosen, device)
            return measure_distortion(module, images, self.world).measurement().flat()

        def draw(module: nn.Module) -> "Image":
            assert isinstance(module, VQVAE)
            chosen = evenly_spaced(len(validation), PREVIEWED)
            return preview_levels(module, torch.cat(list(validation.batches(chosen, device))))

        learning = TrainingJob("stage1", task, measure, "mse", draw)
        yield from fit(self.folder, learning, self.accelerator, self.should_stop)
        if self.accelerator.is_main_process:
            save_autoencoder(self.folder.model / "autoencoder", model)
        self.accelerator.wait_for_everyone()

    def _codes(self) -> Iterator[Event]:
        self._require("stage1")
        autoencoder = load_autoencoder(self.folder.model / "autoencoder")
        if isinstance(autoencoder, Pixels):
            return
        autoencoder.to(self.accelerator.device)
        splits: list[tuple[str, ImageDataset | AugmentedImages]]
        splits = [("train", self.augmentation), ("validation", self.data.validation)]
        for split, dataset in splits:
            yield from self._extract(autoencoder, dataset, split)
        self.accelerator.wait_for_everyone()

    def _extract(
        self, autoencoder: VQVAE, dataset: ImageDataset | AugmentedImages, split: str
    ) -> Iterator[Event]:
        """Ranks take a shard each, and look around for a stop after each."""
        info, folder = describe_codes(autoencoder, dataset), self.folder.codes
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        start, total, shards = time.monotonic(), len(dataset), num_shards(len(dataset))
        for first in range(0, shards, world):
            before, stop = shard_range(first, total).start, False
            together = min(world, shards - first)  # the others are as far, or nearly
            if (number := first + rank) < shards:
                path = shard_path(folder, split, number)
                for own in extract_shard(autoencoder, dataset, info, path, number):
                    done = min(before + own * together, total)
                    rate = done / max(1e-9, time.monotonic() - start)
                    yield Event("codes", done, total, split=split, rate=rate)
                    stop = self.should_stop()
                    if stop:
                        break
            if on_any_rank(stop, self.accelerator):
                raise Stopped
        if self.accelerator.is_main_process:
            remove_other_shards(folder, split, total)

    def _prior(self, level: int) -> Iterator[Event]:
        self._require("stage1")
        device, path = self.accelerator.device, self.folder.model / "priors" / str(level)
        autoencoder = load_autoencoder(self.folder.model / "autoencoder").to(device)
        known = fingerprint(autoencoder)
        if self.folder.done(f"prior{level}"):
            load_prior(path, known)
            return
        codes, validation = self._splits(known, level + 1)
        seed_weights(self.run.seed, f"prior{level}")
        prior = Prior(self.run.priors[level], self.run.domain(level)).to(device)
        task = PriorTask(
            prior=prior,
            level=level,
            codes=codes,
            config=self.run.stage2[level],
            seed=self.run.seed,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
        )

        def measure(module: nn.Module) -> dict[str, float]:
            limit, batch = task.config.validation_examples, part_of(task)
            nats = nats_per_code(prior_of(module), level, validation, limit, batch, self.world)
            return {"nats_per_code": nats}

        def draw(module: nn.Module) -> "Image":
            maps, labels = validation.batch(evenly_spaced(len(validation), PREVIEWED))
            return preview_samples(prior_of(module), level, autoencoder, maps, labels)

        name, steps = f"prior{level}", {n: t.steps for n, t in self.run.trainings().items()}
        before = sum(list(steps.values())[: list(steps).index(name)])
        learning = TrainingJob(name, task, measure, "nats_per_code", draw, before)
        yield from fit(self.folder, learning, self.accelerator, self.should_stop)
        if self.accelerator.is_main_process:
            save_prior(path, prior, known)
        self.accelerator.wait_for_everyone()

    def _splits(self, known: str, num_levels: int) -> tuple[CodeDataset, CodeDataset]:
        """What a prior learns from and is measured on: codes, or the images themselves."""
        if self.run.on_pixels:
            return PixelCodes(self.data.train), PixelCodes(self.data.validation)
        train = open_codes(self.folder.codes, "train", known, num_levels)
        if train.info.dataset != self.augmentation.fingerprint():
            raise ValueError(
                f"The codes in {self.folder.codes} are of other augmented images; make them "
                "again with `--stage codes`."
            )
        return train, open_codes(self.folder.codes, "validation", known)

    def _require(self, stage: str) -> None:
        if not self.folder.done(stage):
            raise ValueError(
                f"{self.folder.path} has no trained autoencoder yet; train `--stage stage1` first."
            )


def new_accelerator(run: RunConfig, folder: RunFolder, tracker: str | None = None) -> Any:
    """The processes, device and precision that train `run`.

    Arguments:
        tracker: one of accelerate's, by name; its package must be installed.
    """
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs

    precision = "bf16" if run.precision == "bfloat16" else "no"
    if run.precision == "auto" and torch.cuda.is_available() and torch.cuda.is_bf16_supported():
        precision = "bf16"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        # Without this, processes on a machine without a GPU would not know of one another.
        cpu=world > 1 and not torch.accelerator.is_available(),
        mixed_precision=precision,
        log_with=tracker,
        project_dir=str(folder.path),
        kwargs_handlers=[DistributedDataParallelKwargs(**SHARED)],
    )
    if accelerator.num_processes != world:
        raise ValueError(
            f"{world} processes were started, but {accelerator.num_processes} train together; "
            "start them with `torchrun` or `accelerate launch`."
        )
    accelerator.init_trackers("vqvae2")
    return accelerator


def prior_of(module: nn.Module) -> Prior:
    """The prior inside a task's module."""
    assert isinstance(module, PriorLoss)
    return module.prior


def part_of(task: PriorTask) -> int:
    """Examples that a rank holds at a time in training: what fits there fits in measuring."""
    return max(1, task.config.batch // (task.config.accumulate * task.world))


def seed_weights(seed: int, name: str) -> None:
    """Makes the first weights of a model a function of (seed, name); layers take no generator."""
    torch.manual_seed(generator("weights", seed, name).initial_seed())
