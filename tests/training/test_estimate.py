"""Roughly how long a run will train."""

from dataclasses import replace

import pytest
import torch
from small_runs import sharp_run, small_run, with_training

from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.priors import Prior
from vqvae2.runs.presets import find_preset
from vqvae2.training import estimate
from vqvae2.training.estimate import counted_flops, estimate_seconds, stage_flops

RATE = 1e9


@pytest.fixture(autouse=True)
def _rate(monkeypatch):
    monkeypatch.setattr(estimate, "matrix_rate", lambda device: RATE)


def test_the_operations_of_a_prior_are_those_of_its_forward_pass():
    run = small_run()
    prior = Prior(run.levels[1].prior, run.domain(1))
    maps = torch.zeros(1, *run.grids()[0].shape, dtype=torch.int64)
    values = torch.zeros(1, *run.grids()[1].shape, dtype=torch.int64)
    label = torch.zeros(1, dtype=torch.int64)
    expected = counted_flops(lambda: prior(values, prior.embed_context(label, [maps])))
    assert stage_flops(run)[-1][1] == expected > 0


def test_every_trained_stage_is_counted():
    assert len(stage_flops(small_run())) == 3
    assert len(stage_flops(sharp_run())) == 4
    assert len(stage_flops(find_preset("gated-cifar10")())) == 1


def test_the_time_is_proportional_to_steps_and_processes():
    least, most = estimate_seconds(small_run(), SINGLE_PROCESS)
    assert 0 < least < most
    total = sum(3 * t.steps * t.batch * flops for t, flops in stage_flops(small_run()))
    assert least == pytest.approx(total / (0.7 * RATE))
    assert estimate_seconds(small_run(), World(0, 2)) == pytest.approx((least / 2, most / 2))
    longer = with_training(small_run(), None, steps=10**6)
    assert estimate_seconds(longer, SINGLE_PROCESS)[0] > 100 * least


def test_nothing_is_drawn_from_the_global_generator():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    stage_flops(replace(small_run(), levels=()))
    assert torch.equal(torch.get_rng_state(), state)
