"""Training in float16: a loss scale, and steps that it skips on the device."""

from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from adversarial_task import AdversarialTask
from builders import small_config
from gloo import free_port, join_group, leave_group
from small_runs import TRAIN
from torch import Tensor, nn
from training_tasks import RegressionTask

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.runs.config import AutoencoderStageConfig
from vqvae2.training import checkpoint
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.fit import FiniteGuard
from vqvae2.training.loop import (
    Loss,
    Progress,
    TrainingState,
    learning_rate,
    new_state,
    train,
)
from vqvae2.training.loss_scale import INITIAL_SCALE


def run(task, state: TrainingState | None = None, until: int = 10) -> TrainingState:
    state = state or new_state(task, "float16")
    for progress in train(task, state, Accelerator(cpu=True)):
        if progress.step == until:
            break
    return state


def tensors_of(state: TrainingState) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in checkpoint.state_tensors(state).items()}


def test_steps_in_float16_equal_those_of_torchs_scaler():
    state = run(task := RegressionTask())
    reference = RegressionTask()
    scaler, network = torch.amp.GradScaler("cpu"), reference.network
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    skipped = 0
    for step in range(10):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.float16):
            loss = reference.loss(network, reference.batch(step)[0], step)
        scaler.scale(loss.value).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(network.parameters(), TRAIN.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(TRAIN, step)
        before = scaler.get_scale()
        scaler.step(optimizer)
        scaler.update()
        skipped += scaler.get_scale() < before
    scale = state.phases["network"].scale
    assert 0 < skipped < 9
    assert scale.skipped == skipped
    assert scale.scale == scaler.get_scale()
    assert scale.good_steps == scaler.state_dict()["_growth_tracker"]
    for name, value in network.state_dict().items():
        assert torch.equal(task.network.state_dict()[name], value), name


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("stop", [1, 5])  # among the steps that are skipped, and after them
def test_ten_steps_in_float16_equal_a_checkpoint_between_them(stop, accumulate, tmp_path):
    complete = run(RegressionTask(accumulate=accumulate))
    first = run(RegressionTask(accumulate=accumulate), until=stop)
    checkpoint.save(tmp_path, first.step, checkpoint.state_tensors(first), first.notes)
    saved, _ = checkpoint.latest(tmp_path)
    resumed = new_state(again := RegressionTask(accumulate=accumulate), "float16")
    checkpoint.load_state(resumed, saved)
    run(again, resumed)
    expected, tensors = tensors_of(complete), tensors_of(resumed)
    assert {"scale.network.scale", "scale.network.skipped"} < expected.keys()
    assert expected["scale.network.scale"] < INITIAL_SCALE
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_norm_and_the_clipping_of_gradients_do_not_depend_on_the_scale():
    norms, weights = [], []
    for precision, scale in [("float32", 0), ("float16", 1.0), ("float16", 2.0**10)]:
        state = new_state(task := RegressionTask(factor=3.0), precision)
        if scale:
            state.phases["network"].scale.scale.fill_(scale)
        steps = train(task, state, Accelerator(cpu=True))
        norms.append(next(steps).metrics["gradient_norm.network"].item())
        gradients = state.phases["network"].optimizers[0].state
        weights.append(torch.cat([values["exp_avg"].flatten() for values in gradients.values()]))
    assert norms[0] > TRAIN.clip_norm
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=1e-2)
    for other in weights[1:]:
        torch.testing.assert_close(other, weights[0], rtol=0.05, atol=1e-3)


def autoencoder_task(learn_by: str, accumulate: int) -> AutoencoderTask:
    torch.manual_seed(0)
    config = small_config((2, 4))
    config = replace(config, codebooks=(replace(config.codebooks[0], learn_by=learn_by),))
    training = replace(TRAIN, accumulate=accumulate)
    stage = AutoencoderStageConfig(model=config, training=training, continuous_steps=2)
    data = open_images(DataConfig(size=16, synthetic_images=100))
    return AutoencoderTask(VQVAE(config), data.train, stage, seed=0)


@pytest.mark.parametrize(("learn_by", "accumulate"), [("ema", 1), ("ema", 2), ("gradient", 1)])
def test_a_step_that_the_scale_skips_changes_nothing_but_the_scale(learn_by, accumulate):
    """Weights, averages, optimizers, codebooks."""
    task = autoencoder_task(learn_by, accumulate)
    state = run(task, until=5)
    scale = state.phases["autoencoder"].scale
    scale.scale.fill_(1e30)
    before, skipped = tensors_of(state), int(scale.skipped)
    steps = train(task, state, Accelerator(cpu=True))
    progress = next(steps)
    after = tensors_of(state)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    names = ("scale", "skipped", "good_steps")
    assert changed <= {f"scale.autoencoder.{name}" for name in names}
    assert scale.scale.item() == pytest.approx(5e29)
    assert progress.metrics["skipped_steps.autoencoder"] == skipped + 1
    assert progress.metrics["loss_scale.autoencoder"].item() == pytest.approx(5e29)
    scale.scale.fill_(1.0)
    next(steps)
    later = tensors_of(state)
    for name in before:
        if name.startswith(("model", "average")):
            assert later[name].isfinite().all(), name
    assert any(not torch.equal(later[name], before[name]) for name in before if "sums" in name)


def test_a_phase_that_overflows_skips_the_later_ones_and_halves_its_own_scale_alone():
    state = new_state(task := AdversarialTask(), "float16")
    state.phases["generator"].scale.scale.fill_(1e30)
    state.phases["discriminator"].scale.scale.fill_(256)
    before = tensors_of(state)
    next(train(task, state, Accelerator(cpu=True)))
    after = tensors_of(state)
    for name in before:
        if name.startswith(("model", "average")):
            assert torch.equal(before[name], after[name]), name
    scales = {name: phase.scale for name, phase in state.phases.items()}
    assert scales["generator"].scale.item() == pytest.approx(5e29)
    assert scales["discriminator"].scale == 256
    assert [int(scale.skipped) for scale in scales.values()] == [1, 1]


def test_allowed_skips_are_of_infinite_losses_and_not_of_steps_that_the_scale_skips():
    task = RegressionTask(max_skipped_steps=1)
    honest = task.loss

    def loss(module: nn.Module, part: Tensor, step: int) -> Loss[int]:
        result = honest(module, part, step)
        return replace(result, value=result.value * (float("nan") if step == 8 else 1))

    task.phases = [replace(task.phases[0], loss=loss)]
    state = new_state(task, "float16")
    skipped = [p.step for p in train(task, state, Accelerator(cpu=True)) if p.skipped]
    assert skipped == [9]
    assert state.notes["skipped"] == 1
    assert state.phases["network"].scale.skipped > 0
    assert all(p.isfinite().all() for p in task.network.parameters())


def test_a_skipped_step_is_no_invalid_metric_but_a_vanishing_scale_is_an_error():
    guard = FiniteGuard("prior0", lambda step: "examples")
    state = new_state(task := RegressionTask(factor=1000.0), "float16")
    steps = train(task, state, Accelerator(cpu=True))
    guard.check(next(steps), now=True)
    assert state.phases["network"].scale.skipped == 1
    state.phases["network"].scale.scale.fill_(1e30)
    guard.check(next(steps), now=True)
    vanished = {"loss_scale.network": (torch.tensor(0.5), torch.ones(()))}
    with pytest.raises(FloatingPointError, match=r"overflows in float16 .* use .* float32"):
        guard.check(Progress(7, vanished), now=True)


def train_on(rank: int, port: int, folder: str) -> None:
    """Only the second process's gradients overflow, and once its loss is NaN."""
    torch.set_num_threads(1)
    join_group(rank, 2, port)
    for is_sharded in (False, True):
        task = RegressionTask(
            factor=1000.0 if rank else 1.0, max_skipped_steps=1, shard_optimizer=is_sharded
        )

        def loss(module: nn.Module, part: Tensor, step: int, task=task) -> Loss[int]:
            result = task.loss(module, part, step)
            is_broken = rank == 1 and step == 8
            return replace(result, value=result.value * (float("nan") if is_broken else 1))

        task.phases = [replace(task.phases[0], loss=loss)]
        state = new_state(task, "float16")
        skipped = [p.step for p in train(task, state, Accelerator(cpu=True)) if p.skipped]
        assert skipped == [9]
        tensors = checkpoint.state_tensors(state)
        torch.save(tensors, f"{folder}/{'sharded' if is_sharded else 'whole'}-{rank}.pt")
    leave_group()


def test_processes_skip_the_same_steps_with_whole_and_with_sharded_optimizers(tmp_path):
    multiprocessing.spawn(train_on, (free_port(), str(tmp_path)), nprocs=2)
    names = ("whole-0", "whole-1", "sharded-0", "sharded-1")
    first, *others = (torch.load(tmp_path / f"{name}.pt") for name in names)
    assert first["scale.network.skipped"] > 0
    for tensors in others:
        for name, value in tensors.items():
            assert torch.equal(value, first[name]), name
