"""Adam, AdamW and Muon: which parameters they update, and exact resume."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from small_runs import TRAIN, small_run, train
from torch import nn
from training_tasks import RegressionTask

from vqvae2.priors import TransformerConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.training import checkpoint
from vqvae2.training.loop import learning_rate, new_state
from vqvae2.training.loop import train as train_loop
from vqvae2.training.optimizers import new_optimizers

MUON = replace(TRAIN, optimizer="muon", weight_decay=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(5, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.Linear(6, 5))


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_muon_updates_the_hidden_matrices_and_adamw_everything_else():
    module = network()
    muon, adamw = new_optimizers(module, MUON, hidden=module[1])
    assert isinstance(muon, torch.optim.Muon)
    assert [id(p) for p in parameters_of(muon)] == [id(module[1].weight)]
    updated = sorted(id(p) for optimizer in (muon, adamw) for p in parameters_of(optimizer))
    assert updated == sorted(map(id, module.parameters())), "each parameter once"


def test_vectors_do_not_decay():
    (adamw,) = new_optimizers(network(), replace(TRAIN, optimizer="adamw", weight_decay=0.3))
    decays = {
        p.ndim > 1: group["weight_decay"] for group in adamw.param_groups for p in group["params"]
    }
    assert decays == {True: 0.3, False: 0.0}


def test_adamw_without_decay_is_adam():
    tasks = [RegressionTask(), RegressionTask(optimizer="adamw")]
    for task in tasks:
        for _ in train_loop(task, new_state(task), Accelerator(cpu=True)):
            pass
    states = [task.network.state_dict() for task in tasks]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


def test_muon_without_matrices_is_one_clear_line():
    with pytest.raises(ValueError, match=r"hidden matrices of linear layers.*Use the optimizer"):
        new_optimizers(nn.Conv2d(3, 3, 3), MUON, hidden=nn.Conv2d(3, 3, 3))


def test_muon_in_float16_is_one_clear_line():
    task = RegressionTask(optimizer="muon")
    task.phases = [replace(task.phases[0], hidden=task.network)]
    with pytest.raises(ValueError, match="muon cannot skip a step on the device"):
        new_state(task, "float16")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": 0.1}, "weight_decay must be 0 with the optimizer adam, got 0.1"),
        (
            {"optimizer": "muon", "shard_optimizer": True},
            "shard_optimizer needs the optimizer",
        ),
        ({"optimizer": "adamw", "weight_decay": -1.0}, "weight_decay must be at least 0, got -1"),
        ({"beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_do_not_fit_are_one_clear_line(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(TRAIN, **changes).check("levels.0.training")


def test_ten_steps_with_muon_equal_five_a_checkpoint_and_five_more(tmp_path):
    def new_task() -> RegressionTask:
        task = RegressionTask(optimizer="muon", weight_decay=0.1)
        task.phases = [replace(task.phases[0], hidden=task.network[0])]
        return task

    def steps(task, state, until):
        for progress in train_loop(task, state, Accelerator(cpu=True)):
            if progress.step == until:
                return state
        return state

    task = new_task()
    complete = steps(task, new_state(task), 10)
    task = new_task()
    first = steps(task, new_state(task), 5)
    tensors = checkpoint.state_tensors(first)
    assert {"optimizer.network.0.momentum_buffer", "optimizer.network.1.exp_avg"} < tensors.keys()
    checkpoint.save(tmp_path, first.step, tensors, first.notes)
    saved, _ = checkpoint.latest(tmp_path)
    task = new_task()
    resumed = new_state(task)
    checkpoint.load_state(resumed, saved)
    steps(task, resumed, 10)
    expected, found = checkpoint.state_tensors(complete), checkpoint.state_tensors(resumed)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_trains_its_priors_with_muon(tmp_path):
    run = small_run()
    prior = TransformerConfig(channels=8, num_layers=1, num_heads=2)
    level = replace(run.levels[0], prior=prior, training=MUON, masking=0.3)
    folder = train(tmp_path, replace(run, levels=(level, replace(level, coarser_dropout=0.3))))
    assert folder.prior(1).is_dir()


def test_a_cosine_falls_slowly_at_both_ends():
    training = TrainingConfig(
        steps=100, cooldown=1.0, warmup_steps=0, cooldown_shape="cosine", learning_rate=1.0
    )
    rates = [learning_rate(training, step) for step in range(101)]
    assert rates[0] == 1
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert rates[0] - rates[10] < 0.05 > rates[90] - rates[100]
