"""Plans for a number of hours, from measurements on this machine."""

from dataclasses import replace

import pytest
import torch
from small_runs import SHARP, TRAIN, session, sharp_run, small_run

from vqvae2.data.config import DataConfig
from vqvae2.data.facts import ImageFacts
from vqvae2.runs.budget import UNPLANNED
from vqvae2.training import planning
from vqvae2.training.planning import default_network, design_run, measure_costs, plan_run


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch):
    monkeypatch.setattr(planning, "SECONDS_PER_MEASUREMENT", 0.0)
    monkeypatch.setattr(planning, "MIN_STEPS_MEASURED", 2)


def followed(events):
    """All events of a generator, and what it returns."""
    seen = []
    while True:
        try:
            seen.append(next(events))
        except StopIteration as end:
            return seen, end.value


def unplanned():
    """A small run with a decoder stage, whose steps are not planned."""
    run, training = sharp_run(), replace(TRAIN, steps=UNPLANNED)
    classifier = replace(SHARP.perceptual.classifier, steps=UNPLANNED)
    return replace(
        run,
        autoencoder=replace(run.autoencoder, training=training),
        decoder=replace(
            SHARP, training=training, perceptual=replace(SHARP.perceptual, classifier=classifier)
        ),
        levels=tuple(replace(level, training=training) for level in run.levels),
    )


def test_every_stage_is_measured_and_nothing_is_written(tmp_path):
    events, costs = followed(measure_costs(session(tmp_path / "run", unplanned())))
    stages = [costs.autoencoder, costs.decoder, *costs.levels]
    assert all(cost.step > cost.example > 0 for cost in stages)
    assert len(costs.levels) == 2
    assert costs.classifier_step > 0
    assert costs.fixed > 0
    assert [event.done for event in events] == list(range(1, events[0].total + 1))
    assert not (tmp_path / "run").exists()


def test_runs_without_a_decoder_or_without_labels_are_measured(tmp_path):
    run = small_run((4,))
    _, costs = followed(measure_costs(session(tmp_path, run)))
    assert costs.decoder is None
    assert costs.classifier_step == 0
    assert len(costs.levels) == 1
    decoder = replace(SHARP, perceptual_weight=0.0)
    _, costs = followed(measure_costs(session(tmp_path, replace(run, decoder=decoder))))
    assert costs.decoder is not None
    assert costs.classifier_step == 0


def test_a_plan_takes_the_hours_less_what_has_passed(tmp_path):
    opened = session(tmp_path, unplanned())
    _, planned = followed(plan_run(opened, hours=0.1, spent=0.0))
    config, late = planned.config, followed(plan_run(opened, hours=0.1, spent=300.0))[1].config
    assert planned.budget.open == ("autoencoder", "decoder", "prior0", "prior1")
    assert 0 < planned.budget.spent < 60
    assert 0 < late.autoencoder.training.steps < config.autoencoder.training.steps < UNPLANNED
    assert config.decoder.perceptual.classifier.steps < UNPLANNED


def test_a_design_reads_the_source(tmp_path):
    config = design_run(DataConfig(synthetic_images=400), 0.01, torch.device("cpu"))
    assert config.preset == "0.01h"
    assert config.num_classes == 12
    config.check()
    for hours in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="hours must be a number above 0"):
            design_run(DataConfig(), hours, torch.device("cpu"))


def test_photographs_get_a_network_of_imagenet_if_it_is_installed(monkeypatch):
    photographs = ImageFacts(num_images=9000, num_classes=10, short_side=128)
    small, unlabelled = replace(photographs, short_side=32), replace(photographs, num_classes=1)
    monkeypatch.setattr(planning, "weights_path", lambda: "a file")
    names = [default_network(facts) for facts in (photographs, small, unlabelled)]
    assert names == ["efficientnet-lite0", "classifier", "efficientnet-lite0"]
    monkeypatch.setattr(planning, "weights_path", lambda: None)
    assert [default_network(f) for f in (photographs, small, unlabelled)] == [
        "classifier", "classifier", "",
    ]  # fmt: skip
