"""Training steps on a simulated GPU: the host never waits for the device within a step."""

from collections.abc import Iterator

import pytest
import torch
from builders import small_config, synthetic_images
from prior_cases import CONFIGS, DOMAINS
from simulated_cuda import DEVICE, SimulatedAccelerator, SimulatedCuda
from small_runs import TRAIN

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.priors import Prior, PriorConfig
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.loop import Task, new_state, train
from vqvae2.training.prior import PriorTask


@pytest.fixture()
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation:
        yield simulation


def require_asynchronous_steps(task: Task, cuda: SimulatedCuda, limit: int) -> None:
    """Trains; fails if a step after the first waits, or has more operations than `limit`."""
    steps = train(task, new_state(task), SimulatedAccelerator())
    next(steps)
    for _ in range(3):
        cuda.reset()
        next(steps)
        cuda.counts.require_asynchronous()
        assert cuda.counts.copies > 0
        assert cuda.counts.num_operations <= limit, cuda.counts.operations
    steps.close()


def autoencoder_task(continuous_steps: int = 0) -> AutoencoderTask:
    data = open_images(DataConfig(size=16, synthetic_images=100))
    stage = AutoencoderStageConfig(
        model=small_config((2, 4)), training=TRAIN, continuous_steps=continuous_steps,
        level_dropout=0.25,
    )  # fmt: skip
    return AutoencoderTask(VQVAE(stage.model).to(DEVICE), data.train, stage, seed=0)


def test_a_step_of_the_autoencoder_never_waits(cuda):
    require_asynchronous_steps(autoencoder_task(), cuda, 240)
