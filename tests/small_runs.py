"""Runs of a few steps, and everything of them that must not depend on interruptions."""

from pathlib import Path

from accelerate import Accelerator
from builders import small_config

from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.priors import GatedPixelCNNConfig
from vqvae2.runs.config import AutoencoderConfig, RunConfig, TrainingConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig
from vqvae2.training.stages import Job

TRAIN = TrainingConfig(
    steps=10, batch=8, warmup_steps=2, validate_every=5, save_every=5, log_every=1,
    validation_examples=16,
)  # fmt: skip


def small_run(factors: tuple[int, ...] = (2, 4)) -> RunConfig:
    prior = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    levels = len(factors)
    return RunConfig(
        preset="small",
        data=DataConfig(size=16, synthetic_images=80, validation_fraction=0.25),
        num_classes=12,
        autoencoder=small_config(factors),
        stage1=AutoencoderConfig(train=TRAIN, continuous_steps=3, level_dropout=0.25),
        priors=(prior,) * levels,
        stage2=(TRAIN,) * levels,
        sampling=(SamplingConfig(),) * levels,
    )


def train(path: Path, run: RunConfig, stop_after: int | None = None) -> RunFolder:
    """Trains; `stop_after` counts steps of all stages and then asks to stop."""
    folder = RunFolder(path)
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return stop_after is not None and asked >= stop_after

    job = Job(folder, run, open_images(run.data), Accelerator(cpu=True), should_stop)
    for _ in job.train():
        pass
    return folder


def outcome(folder: RunFolder) -> dict[str, bytes]:
    """Everything that must not depend on interruptions: models, last states, codes, logs."""
    patterns = ("model/**/*", "checkpoints/*/*", "codes/*", "log/*.jsonl")
    paths = [path for pattern in patterns for path in folder.path.glob(pattern)]
    return {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in paths
        if path.is_file() and "timing" not in path.name
    }
