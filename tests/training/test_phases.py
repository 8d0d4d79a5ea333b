"""Tasks with several phases: one optimizer each, all of it in checkpoints."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as multiprocessing
from accelerate import Accelerator
from adversarial_task import AdversarialTask
from gloo import free_port, join_group, leave_group
from small_runs import TRAIN
from torch import Tensor, nn

from vqvae2.distributed import World
from vqvae2.training import checkpoint
from vqvae2.training.loop import Loss, new_state, train

STEPS = 10


def steps(task: AdversarialTask, count: int, state=None):
    state = state or new_state(task)
    for progress in train(task, state, Accelerator(cpu=True)):
        if progress.step == count:
            break
    return state


def test_every_phase_learns_with_an_optimizer_of_its_own():
    task = AdversarialTask()
    before = [p.clone() for phase in task.phases for p in phase.module.parameters()]
    state = new_state(task)
    *_, last = train(task, state, Accelerator(cpu=True))
    after = [p for phase in task.phases for p in phase.module.parameters()]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    names = ["generator", "gradient_norm.generator", "discriminator"]
    assert list(last.metrics) == [*names, "gradient_norm.discriminator"]
    assert task.calls[-2:] == [("before", STEPS - 1), (f"output {STEPS - 1}", STEPS - 1)]


def test_only_averaged_phases_keep_an_average():
    state = new_state(AdversarialTask())
    assert list(state.averages()) == ["generator"]
    assert state.average is state.phases["generator"].average
    names = checkpoint.state_tensors(state)
    assert not any(name.startswith("average.discriminator") for name in names)


def test_ten_steps_of_two_phases_equal_five_a_checkpoint_and_five_more(tmp_path):
    complete = steps(AdversarialTask(), STEPS)
    first = steps(AdversarialTask(), 5)
    checkpoint.save(tmp_path, first.step, checkpoint.state_tensors(first), first.notes)
    saved, _ = checkpoint.latest(tmp_path)
    resumed = new_state(again := AdversarialTask())
    checkpoint.load_state(resumed, saved)
    assert resumed.step == 5
    steps(again, STEPS, resumed)
    expected, tensors = (checkpoint.state_tensors(state) for state in (complete, resumed))
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_gradients_that_one_phase_leaves_in_another_module_are_not_used(monkeypatch):
    """The generator's loss passes through the discriminator."""
    task, checked = AdversarialTask(), []
    honest = task.discriminator_loss

    def loss(module: nn.Module, part: Sequence[Tensor], step: int) -> Loss[str]:
        checked.append(all(p.grad is None for p in module.parameters()))
        return honest(module, part, step)

    task.phases = [task.phases[0], replace(task.phases[1], loss=loss)]
    steps(task, 3)
    assert checked == [True] * 3


@pytest.mark.parametrize("broken", ["generator", "discriminator"])
def test_a_step_is_skipped_when_any_phase_has_a_nan_gradient(broken):
    task = AdversarialTask()
    phase = next(phase for phase in task.phases if phase.name == broken)

    def loss(module: nn.Module, part: Sequence[Tensor], step: int) -> Loss[str]:
        found = phase.loss(module, part, step)
        return Loss(found.value * (float("nan") if step == 2 else 1), found.metrics, found.output)

    patient = replace(TRAIN, max_skipped_steps=1)
    task.phases = [
        replace(p, training=patient, loss=loss if p is phase else p.loss) for p in task.phases
    ]
    skipped = [p.step for p in train(task, new_state(task), Accelerator(cpu=True)) if p.skipped]
    assert skipped == [3]
    assert all(torch.isfinite(p).all() for p in task.generator.parameters())
    assert all(torch.isfinite(p).all() for p in task.discriminator.parameters())


def train_on(rank: int, size: int, port: int, folder: str) -> None:
    """The task as one of `size` processes."""
    torch.set_num_threads(1)
    join_group(rank, size, port)
    state = steps(AdversarialTask(World(rank, size)), STEPS)
    torch.save(checkpoint.state_tensors(state), f"{folder}/{size}-{rank}.pt")
    leave_group()


def test_two_phases_on_two_processes_equal_those_on_one(tmp_path):
    multiprocessing.spawn(train_on, (2, free_port(), str(tmp_path)), nprocs=2)
    multiprocessing.spawn(train_on, (1, 0, str(tmp_path)), nprocs=1)
    first, second, alone = (torch.load(tmp_path / f"{n}.pt") for n in ("2-0", "2-1", "1-0"))
    for name, value in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, atol=1e-5, rtol=1e-4)
