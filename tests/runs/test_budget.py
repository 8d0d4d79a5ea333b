"""Runs for a number of hours: what is chosen for which images, and how time is divided."""

from dataclasses import replace

import pytest

from vqvae2.data.config import DataConfig
from vqvae2.data.facts import ImageFacts
from vqvae2.runs.budget import (
    UNPLANNED,
    Costs,
    StageCost,
    allot,
    choose_num_codes,
    choose_size,
    design,
    parts_of,
)
from vqvae2.runs.scales import SCALES

FACTS = ImageFacts(num_images=50_000, num_classes=10, short_side=32)
COST = StageCost(step=0.1, example=1e-3)
COSTS = Costs(autoencoder=COST, decoder=COST, classifier_step=0.2, levels=(COST, COST), fixed=30.0)


def designed(flops=1e15, network="classifier", **facts):
    return design(1.0, DataConfig(), replace(FACTS, **facts), flops, network)


@pytest.mark.parametrize("flops", [scale.flops for scale in SCALES])
@pytest.mark.parametrize("short_side", [0, 28, 32, 100, 500])
@pytest.mark.parametrize("num_images", [10, 200, 9_000, 1_000_000])
def test_every_design_can_be_trained(flops, short_side, num_images):
    config = designed(flops, short_side=short_side, num_images=num_images)
    config.check()
    assert config.data.size <= max(16, 4 * short_side / 3)
    for level in config.levels:
        assert level.training.batch <= max(1, num_images // 4)
    replace(config, decoder=None, num_classes=1).autoencoder.check("autoencoder")


def test_images_without_labels_get_no_guidance_and_no_classifier():
    config = designed(num_classes=1, network="")
    config.check()
    assert [level.sampling.guidance for level in config.levels] == [1, 1]
    assert config.decoder.network_name == ""


def test_more_computation_pays_for_larger_models():
    sizes = [designed(scale.flops, short_side=1000).levels[0].prior.channels for scale in SCALES]
    assert sizes == sorted(sizes)
    assert [scale.flops for scale in SCALES] == sorted(scale.flops for scale in SCALES)


def test_images_are_enlarged_by_a_third_at_most():
    assert [choose_size(side, 64) for side in (8, 23, 24, 47, 48, 500)] == [16, 16, 32, 32, 64, 64]


def test_few_images_get_few_codes():
    assert choose_num_codes(10, 512) == choose_num_codes(32 * 63, 512) == 32
    assert choose_num_codes(32 * 64, 512) == 64
    assert choose_num_codes(10**9, 512) == 512
    assert choose_num_codes(10**9, 128) == 128


@pytest.mark.parametrize("seconds", [600, 3600, 36_000])
def test_the_planned_steps_take_the_time(seconds):
    config = allot(designed(), COSTS, seconds)
    parts = parts_of(config, COSTS)
    total = COSTS.fixed + sum(part.steps * part.step for part in parts)
    assert 0.95 * seconds < total <= seconds
    config.check()
    for training in (config.autoencoder.training, config.levels[0].training):
        assert training.validate_every <= training.steps
        assert training.warmup_steps < training.steps / 10


def test_steps_that_are_given_are_kept_and_their_time_is_taken_from_the_others():
    free = designed()
    training = replace(free.autoencoder.training, steps=5000)
    given = replace(free, autoencoder=replace(free.autoencoder, training=training))
    config, other = allot(given, COSTS, 3600), allot(free, COSTS, 3600)
    assert config.autoencoder.training == training
    total = sum(part.steps * part.step for part in parts_of(config, COSTS))
    assert 0.95 * 3600 < total + COSTS.fixed <= 3600
    assert config.levels[0].training.steps != other.levels[0].training.steps


def test_the_time_that_planning_took_counts_as_given():
    with pytest.raises(ValueError, match=r"got 0\.025;"):
        allot(designed(), COSTS, 50, spent=40)


def test_too_little_time_names_the_time_that_is_enough():
    with pytest.raises(ValueError, match=r"at least (\S+) hours .* got 0\.014") as error:
        allot(designed(), COSTS, 50)
    hours = float(str(error.value).split("at least ")[1].split()[0])
    config = allot(designed(), COSTS, 3600 * hours)
    assert all(100 <= part.steps < UNPLANNED for part in parts_of(config, COSTS))
