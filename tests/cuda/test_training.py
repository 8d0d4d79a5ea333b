"""Training steps on a simulated GPU: the host never waits for the device within a step."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from adversarial_task import AdversarialTask
from builders import small_config
from prior_cases import CONFIGS, DOMAINS
from simulated_cuda import DEVICE, SimulatedAccelerator, SimulatedCuda
from small_runs import TRAIN
from torch import nn

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.precision import Precision
from vqvae2.priors import Prior
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.checkpoint import load_optimizers
from vqvae2.training.loop import Task, new_state, train
from vqvae2.training.prior import PriorTask


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation:
        yield simulation


def require_asynchronous_steps(
    task: Task, cuda: SimulatedCuda, limit: int, precision: Precision = "float32"
) -> None:
    """Trains; fails if a step after the first waits, or has more operations than `limit`."""
    steps = train(task, new_state(task, precision), SimulatedAccelerator())
    next(steps)
    for _ in range(3):
        cuda.reset()
        next(steps)
        cuda.counts.require_asynchronous()
        assert cuda.counts.copies > 0
        assert cuda.counts.num_operations <= limit, cuda.counts.operations
    steps.close()


def autoencoder_task(continuous_steps: int = 0, **changes: object) -> AutoencoderTask:
    data = open_images(DataConfig(size=16, synthetic_images=100))
    stage = AutoencoderStageConfig(
        model=small_config((2, 4)), training=replace(TRAIN, **changes),
        continuous_steps=continuous_steps, level_dropout=0.25,
    )  # fmt: skip
    return AutoencoderTask(VQVAE(stage.model).to(DEVICE), data.train, stage, seed=0)


def prior_task(architecture: str, **changes: object) -> PriorTask:
    """The task of the finer of two levels, with dropped labels and codes."""
    domain = replace(DOMAINS["2-levels"], null_label=True)
    grids = (*domain.coarser, domain.grid)
    maps = [torch.randint(g.num_codes, (40, *g.shape)).numpy() for g in grids]
    info = CodesInfo(autoencoder="", dataset="", grids=grids, num_images=40)
    codes = CodesInMemory(info, maps, torch.arange(40) % domain.num_classes)
    config = CONFIGS[architecture]
    training = replace(TRAIN, **changes)
    level = LevelConfig(prior=config, training=training, label_dropout=0.1, coarser_dropout=0.1)
    return PriorTask(Prior(config, domain).to(DEVICE), 1, codes, level, seed=0)


OPERATIONS = {
    "plain": (410, 650),
    "attention": (460, 710),
    "pixelcnn": (240, 375),
    "row-lstm": (390, 500),
    "diagonal-bilstm": (990, 1090),
    "pixelcnnpp": (1800, 2490),
    "pixelsnail": (390, 610),
    "transformer": (355, 480),
}
"""Per architecture, operations of a training step at most: in float32 and under autocast."""

LOSS_SCALE = 40
"""Operations per phase that a loss scale adds at most."""


@pytest.mark.parametrize(
    ("precision", "limit"),
    [("float32", 275), ("tf32", 275), ("bfloat16", 375), ("float16", 420)],
)
def test_a_step_of_the_autoencoder_never_waits(precision, limit, cuda):
    require_asynchronous_steps(autoencoder_task(), cuda, limit, precision)


@pytest.mark.parametrize(("precision", "limit"), [("float32", 485), ("float16", 760)])
def test_a_step_in_accumulated_parts_never_waits(precision, limit, cuda):
    require_asynchronous_steps(autoencoder_task(accumulate=2), cuda, limit, precision)


def test_the_step_that_starts_the_codebooks_never_waits(cuda):
    require_asynchronous_steps(autoencoder_task(continuous_steps=2), cuda, 690)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_a_step_of_a_prior_never_waits(architecture, precision, cuda):
    limit = OPERATIONS[architecture][precision != "float32"]
    limit += LOSS_SCALE * (precision == "float16")
    require_asynchronous_steps(prior_task(architecture), cuda, limit, precision)


def test_a_step_that_recomputes_activations_never_waits(cuda):
    require_asynchronous_steps(prior_task("attention", recompute=True), cuda, 650)
    require_asynchronous_steps(autoencoder_task(recompute=True), cuda, 335)


@pytest.mark.parametrize(("precision", "limit"), [("float32", 70), ("float16", 150)])
def test_a_step_of_two_phases_never_waits(precision, limit, cuda):
    task = AdversarialTask()
    for phase in task.phases:
        phase.module.to(DEVICE)
    require_asynchronous_steps(task, cuda, limit, precision)


def test_training_on_the_simulated_device_gives_the_losses_of_the_cpu():
    """So the simulation computes what it counts."""
    task = AdversarialTask()
    expected = [p.metrics for p in train(task, new_state(task), Accelerator(cpu=True))]
    task = AdversarialTask()
    with SimulatedCuda():
        for phase in task.phases:
            phase.module.to(DEVICE)
        steps = train(task, new_state(task), SimulatedAccelerator())
        metrics = [{name: m.cpu() for name, m in step.metrics.items()} for step in steps]
    for simulated, values in zip(metrics, expected, strict=True):
        torch.testing.assert_close(simulated, values)


class ShardedAdam:
    """Loads as torch's ZeroRedundancyOptimizer: it leaves step counts on the CPU."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.optim = torch.optim.Adam(parameters, fused=True)
        self.param_groups = self.optim.param_groups

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.optim.load_state_dict(state)
        for values in self.optim.state.values():
            values["step"] = values["step"].cpu()


def test_a_sharded_optimizer_resumes_with_its_step_counts_on_the_device(cuda):
    parameters = list(nn.Linear(3, 2).to(DEVICE).parameters())
    tensors = {
        f"{index}.{key}": value
        for index, p in enumerate(parameters)
        for key, value in {
            "step": torch.tensor(7.0), "exp_avg": torch.ones(p.shape),
            "exp_avg_sq": torch.ones(p.shape),
        }.items()
    }  # fmt: skip
    optimizer = ShardedAdam(parameters)
    load_optimizers([optimizer], tensors)
    cuda.reset()
    for parameter in parameters:
        assert optimizer.optim.state[parameter]["step"].device == DEVICE
        parameter.grad = torch.ones_like(parameter)
    optimizer.optim.step()
    assert not cuda.counts.mismatches
    assert optimizer.optim.state[parameters[0]]["step"].cpu() == 8
