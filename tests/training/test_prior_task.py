"""Dropped labels and corrupted coarser codes in stage 2."""

from dataclasses import replace

import pytest
import torch
from small_runs import TRAIN, small_run

from vqvae2.data.augmentation import AugmentationConfig
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
    return PriorTask(prior, 1, codes, run.levels[1], seed=0, augmentation=run.augmentation)


def test_label_dropout_replaces_a_fraction_of_the_labels_by_the_null_label():
    task = task_of(run_with(label_dropout=0.25))
    (_, labels, _), *_ = task.batch(0)
    dropped = labels == task.prior.domain.null
    assert 0.15 < dropped.float().mean() < 0.35
    (_, truth, _), *_ = task_of(run_with()).batch(0)
    assert torch.equal(labels[~dropped], truth[~dropped])


def test_coarser_dropout_replaces_a_fraction_of_the_coarser_codes_alone():
    task = task_of(run_with(coarser_dropout=0.3))
    ((coarser, codes), *_), *_ = task.batch(0)
    ((before, target), *_), *_ = task_of(run_with()).batch(0)
    assert torch.equal(codes, target)
    num_codes = task.prior.domain.coarser[0].num_codes
    # Half of the largest fraction on average; a random code is sometimes the one that was there.
    changed = (coarser != before).float().mean(dim=(1, 2))
    assert changed.mean() == pytest.approx(0.15 * (1 - 1 / num_codes), abs=0.02)
    assert (changed == 0).any(), "the fraction of each image is another one"
    assert coarser.max() < num_codes


def test_masking_hides_codes_where_the_prior_reads_them_alone():
    task = task_of(run_with(masking=0.4))
    (codes, _, (visible,)), *_ = task.batch(0)
    (target, _, nothing), *_ = task_of(run_with()).batch(0)
    assert nothing == ()
    assert torch.equal(codes[-1], target[-1]), "all codes are learnt"
    assert visible.shape == codes[-1].shape
    assert (~visible).float().mean() == pytest.approx(0.2, abs=0.03)


def test_a_hidden_code_has_no_influence_and_is_still_predicted():
    task = task_of(run_with(masking=0.4))
    prior = task.prior.double().eval()
    (codes, labels, (visible,)), *_ = task.batch(0)
    codes, labels, visible = [c[:2] for c in codes], labels[:2], visible[:2]
    others = torch.where(visible, codes[-1], (codes[-1] + 1) % 24)
    one, other = (
        prior.features(values, prior.embed_context(labels, codes[:-1]), visible)
        for values in (codes[-1], others)
    )
    torch.testing.assert_close(one, other)
    nats = prior.log_prob(codes[-1], labels, codes[:-1], visible)
    assert nats.shape == codes[-1].shape
    everything = torch.ones_like(visible)
    torch.testing.assert_close(
        prior.log_prob(codes[-1], labels, codes[:-1], everything),
        prior.log_prob(codes[-1], labels, codes[:-1]),
    )


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


def test_a_prior_with_a_mirror_bit_is_told_which_images_are_mirrored():
    augmentation = AugmentationConfig(mirror=True)
    config = replace(run_with(mirror_bit=True, label_dropout=0.25), augmentation=augmentation)
    task = task_of(config)
    (codes, labels, _), *_ = task.batch(0)
    mirrored = labels >= task.prior.domain.num_labels
    assert torch.equal(mirrored, task.indices(0) % 2 == 1)
    plain = labels - task.prior.domain.num_labels * mirrored
    (_, expected, _), *_ = task_of(run_with(label_dropout=0.25)).batch(0)
    assert torch.equal(plain, expected)
    task.prior.eval()
    context = task.prior.embed_context(labels, codes[:-1])
    other = task.prior.embed_context(plain, codes[:-1])
    same = torch.tensor([torch.equal(a, b) for a, b in zip(context, other, strict=True)])
    assert torch.equal(same, ~mirrored)


def test_a_mirror_bit_without_mirrored_images_is_one_clear_line():
    with pytest.raises(ValueError, match=r"mirror_bit needs mirrored images: set"):
        run_with(mirror_bit=True).check()


def test_without_dropout_a_prior_has_no_null_label():
    assert not run_with().domain(1).null_label
    assert run_with(label_dropout=0.1).domain(1).null_label
