"""A run for a number of hours: how its steps follow the time that is left."""

from dataclasses import replace

import pytest
from small_runs import outcome, session, small_run

from vqvae2.runs.budget import UNPLANNED, Budget, Costs, StageCost
from vqvae2.training import pacing, planning
from vqvae2.training.pacing import Clock, steps_by_stage
from vqvae2.training.session import Stopped
from vqvae2.training.stages import train_run

STEP = 0.01
COST = StageCost(step=STEP, example=1e-5)


@pytest.fixture
def rate(monkeypatch):
    """How many times slower than `COST` the machine is found to be when stages are measured."""
    found = {"slowdown": 1.0, "finished": []}

    def measured(training, finished=()):
        cost = StageCost(step=STEP * found["slowdown"], example=1e-5)
        found["finished"].append(tuple(finished))
        done = StageCost(step=0.0, example=0.0)
        levels = (done if f"prior{i}" in finished else cost for i in range(2))
        first = done if "autoencoder" in finished else cost
        yield from ()
        return Costs(autoencoder=first, levels=tuple(levels))

    monkeypatch.setattr(pacing, "measure_costs", measured)
    monkeypatch.setattr(planning, "measure_costs", measured)
    monkeypatch.setattr("vqvae2.runs.budget.MIN_STEPS", 5)
    return found


@pytest.fixture
def clock(monkeypatch):
    """The time, which passes only where a test says so."""
    now = {"time": 0.0}
    monkeypatch.setattr(pacing.time, "monotonic", lambda: now["time"])
    return now


def planned(path, steps=20):
    """A small run whose three stages get about `steps` steps each."""
    run = small_run()
    training = replace(run.autoencoder.training, steps=steps)
    budget = Budget(hours=3 * steps * STEP / 3600, open=("autoencoder", "prior0", "prior1"))
    config = replace(
        run,
        autoencoder=replace(run.autoencoder, training=training, continuous_steps=0),
        levels=tuple(replace(level, training=training) for level in run.levels),
    )
    return replace(session(path, config), budget=budget)


def test_a_slower_machine_gives_the_next_stages_fewer_steps(tmp_path, rate, clock):
    events = list(train_run(opened := planned(tmp_path), lambda s: s.group == "autoencoder"))
    assert not any(event.text for event in events)
    rate["slowdown"] = 2.0
    opened = replace(opened, budget=None, config=opened.folder.read())
    events = list(train_run(opened))
    steps = steps_by_stage(opened.folder.read())
    assert steps["autoencoder"] == (20,)
    # No time passes here, so each of them divides the whole 0.6 seconds.
    assert steps["prior0"][0] == pytest.approx(0.6 / 0.02 * 0.22 / 0.5, rel=0.1)
    assert steps["prior1"][0] == pytest.approx(0.6 / 0.02, rel=0.1)
    assert rate["finished"] == [("autoencoder",), ("autoencoder", "prior0")]
    assert any("in place of 20, to end in" in event.text for event in events)
    assert opened.folder.read_budget().open == ()


def test_time_that_a_stage_took_is_taken_from_the_later_ones(tmp_path, rate, clock):
    opened = planned(tmp_path)
    for event in train_run(opened):
        if event.stage == "autoencoder" and event.done == 20 and event.split == "train":
            clock["time"] = 0.3  # of 0.6 seconds, where 0.2 were planned
    steps = steps_by_stage(opened.folder.read())
    assert steps["prior0"][0] == pytest.approx(0.3 / 0.01 * 0.22 / 0.5, rel=0.1)
    assert steps["prior1"][0] == pytest.approx(0.3 / 0.01, rel=0.1)
    assert opened.folder.read_budget().spent == pytest.approx(0.3)


def test_a_late_run_still_trains_every_stage(tmp_path, rate, clock):
    opened = planned(tmp_path)
    for event in train_run(opened):
        if event.stage == "autoencoder":
            clock["time"] = 1000.0
    steps = steps_by_stage(opened.folder.read())
    assert 4 <= min(steps["prior0"][0], steps["prior1"][0]) < 20
    assert UNPLANNED not in (number for numbers in steps.values() for number in numbers)
    assert (opened.folder.model / "priors" / "1" / "config.json").is_file()


def test_an_interrupted_stage_keeps_its_steps_and_ends_as_it_would_have(tmp_path, rate, clock):
    whole, cut = planned(tmp_path / "whole"), planned(tmp_path / "cut")
    list(train_run(whole))
    asked = 0

    def stop():
        nonlocal asked
        asked += 1
        return asked == 30  # in the prior of level 0

    with pytest.raises(Stopped):
        list(train_run(replace(cut, should_stop=stop)))
    rate["slowdown"] = 3.0
    continued = replace(cut, budget=None, config=cut.folder.read())
    list(train_run(continued, lambda stage: stage.name == "prior0"))
    one, other = outcome(whole.folder), outcome(cut.folder)
    ended = [name for name in other if "prior1" not in name and "checkpoints" not in name]
    assert "log/prior0.jsonl" in ended
    assert all(one[name] == other[name] for name in ended)
    list(train_run(replace(continued, config=cut.folder.read())))
    steps = steps_by_stage(cut.folder.read())
    assert steps["prior0"] == steps_by_stage(whole.folder.read())["prior0"]
    assert steps["prior1"] < steps_by_stage(whole.folder.read())["prior1"]


def test_steps_that_the_user_gives_later_are_kept(tmp_path, rate, clock):
    opened = planned(tmp_path)
    list(train_run(opened, lambda stage: stage.group == "autoencoder"))
    config = opened.folder.read()
    last = replace(config.levels[1], training=replace(config.levels[1].training, steps=7))
    config = replace(config, levels=(config.levels[0], last))
    list(train_run(replace(opened, budget=None, config=config)))
    assert steps_by_stage(opened.folder.read())["prior1"] == (7,)


def test_the_clock_counts_over_calls_and_only_for_runs_with_a_budget(tmp_path, clock):
    opened = session(tmp_path, small_run())
    Clock.of(opened).count(at_least=0.0)
    assert opened.folder.read_budget() is None
    opened.folder.write_budget(Budget(hours=1.0, spent=10.0))
    for passed in (5.0, 7.0):
        counting = Clock.of(opened)
        clock["time"] += passed
        counting.count()
        assert opened.folder.read_budget().spent == 10.0 + (0.0 if passed == 5.0 else 5.0)
        counting.count(at_least=0.0)
    assert opened.folder.read_budget() == Budget(hours=1.0, spent=22.0)
    assert opened.folder.read_budget().left == 3600 - 22
