"""Runs of a few steps, and everything of them that must not depend on interruptions."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator
from builders import small_config

from vqvae2.autoencoder.discriminator import DiscriminatorConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoderConfig
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.priors import GatedPixelCNNConfig
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig, RunConfig
from vqvae2.runs.decoder import DecoderStageConfig, PerceptualConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.session import TrainingSession
from vqvae2.training.stages import train_run

TRAIN = TrainingConfig(
    steps=10, batch=8, warmup_steps=2, validate_every=5, save_every=5, log_every=1,
    validation_examples=16,
)  # fmt: skip


def small_run(factors: tuple[int, ...] = (2, 4)) -> RunConfig:
    prior = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    return RunConfig(
        preset="small",
        data=DataConfig(size=16, synthetic_images=80, validation_fraction=0.25),
        num_classes=12,
        autoencoder=AutoencoderStageConfig(
            model=small_config(factors), training=TRAIN, continuous_steps=3, level_dropout=0.25
        ),
        levels=(LevelConfig(prior=prior, training=TRAIN),) * len(factors),
    )


SHARP = DecoderStageConfig(
    training=TRAIN,
    model=SharpDecoderConfig(channels=16, residual_channels=8, num_residual_blocks=1),
    discriminator=DiscriminatorConfig(channels=8, num_scales=2),
    perceptual=PerceptualConfig(classifier=ClassifierTraining(depth=8, steps=4, batch=8)),
    adversarial_start=0.4,
    discriminator_warmup=0.2,
    penalty_every=2,
)


def sharp_run() -> RunConfig:
    """A run with a decoder stage."""
    return replace(small_run(), decoder=SHARP)


def with_training(run: RunConfig, level: int | None, **changes: object) -> RunConfig:
    """A run with other training settings for a level, or for the autoencoder (None)."""
    if level is None:
        training = replace(run.autoencoder.training, **changes)
        return replace(run, autoencoder=replace(run.autoencoder, training=training))
    levels = list(run.levels)
    levels[level] = replace(levels[level], training=replace(levels[level].training, **changes))
    return replace(run, levels=tuple(levels))


def session(
    path: Path, run: RunConfig, should_stop: Callable[[], bool] = lambda: False
) -> TrainingSession:
    """What trains a run in this process, on the CPU."""
    accelerator = Accelerator(cpu=True)
    return TrainingSession(RunFolder(path), run, open_images(run.data), accelerator, should_stop)


def train(path: Path, run: RunConfig, stop_after: int | None = None) -> RunFolder:
    """Trains; `stop_after` counts steps of all stages and then asks to stop."""
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return stop_after is not None and asked >= stop_after

    for _ in train_run(session(path, run, should_stop)):
        pass
    return RunFolder(path)


def outcome(folder: RunFolder) -> dict[str, bytes]:
    """Everything that must not depend on interruptions: models, last states, codes, logs."""
    patterns = ("model/**/*", "checkpoints/*/*", "codes/*", "log/*.jsonl")
    paths = [path for pattern in patterns for path in folder.path.glob(pattern)]
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in paths
        if path.is_file() and "timing" not in path.name
    }
