"""Dropped labels and corrupted coarser codes in stage 2."""

from dataclasses import replace

import pytest
import torch
from small_runs import TRAIN, small_run

from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.priors import Prior
from vqvae2.runs.config import RunConfig
from vqvae2.training.prior import PriorTask


def run_with(**changes: float) -> RunConfig:
    run = small_run()
    training = replace(TRAIN, batch=400)
    levels = (run.levels[0], replace(run.levels[1], training=training, **changes))
    return replace(run, levels=levels)


def task_of(run: RunConfig) -> PriorTask:
    """The task of the finer level, on random codes."""
    noise, grids = torch.Generator().manual_seed(0), tuple(run.grids())
    maps = [torch.randint(g.num_codes, (400, *g.shape), generator=noise).numpy() for g in grids]
    info = CodesInfo(autoencoder="", dataset="", grids=grids, num_images=400)
    codes = CodesInMemory(info, maps, torch.arange(400) % 12)
    prior = Prior(run.levels[1].prior, run.domain(1))
    return PriorTask(prior, 1, codes, run.levels[1], seed=0)


def test_label_dropout_replaces_a_fraction_of_the_labels_by_the_null_label():
    task = task_of(run_with(label_dropout=0.25))
    (_, labels), *_ = task.batch(0)
    dropped = labels == task.prior.domain.null
    assert 0.15 < dropped.float().mean() < 0.35
    (_, truth), *_ = task_of(run_with()).batch(0)
    assert torch.equal(labels[~dropped], truth[~dropped])


def test_coarser_dropout_replaces_a_fraction_of_the_coarser_codes_alone():
    task = task_of(run_with(coarser_dropout=0.3))
    ((coarser, codes), _), *_ = task.batch(0)
    ((before, target), _), *_ = task_of(run_with()).batch(0)
    assert torch.equal(codes, target)
    num_codes = task.prior.domain.coarser[0].num_codes
    # A random code is sometimes the one that was there.
    assert (coarser != before).float().mean() == pytest.approx(0.3 * (1 - 1 / num_codes), abs=0.03)
    assert coarser.max() < num_codes


def test_what_is_dropped_is_a_function_of_seed_and_step():
    config = run_with(label_dropout=0.25, coarser_dropout=0.3)
    first, again, other = (
        task_of(config).batch(3),
        task_of(config).batch(3),
        task_of(config).batch(4),
    )
    assert torch.equal(first[0][1], again[0][1])
    assert torch.equal(first[0][0][0], again[0][0][0])
    assert not torch.equal(first[0][0][0], other[0][0][0])


def test_without_dropout_a_prior_has_no_null_label():
    assert not run_with().domain(1).null_label
    assert run_with(label_dropout=0.1).domain(1).null_label
