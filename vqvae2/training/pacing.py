"""Keeping a run within its hours: a stage that begins gets its steps from the time that is left.

Machines become faster and slower while they work, so the plan of the beginning would end early or
late. Before a stage begins, what is left of the run is measured and divided anew. From then on the
steps of the stage are fixed: an interrupted stage continues exactly.
"""

import time
from collections.abc import Collection, Generator
from dataclasses import dataclass, replace

from vqvae2.runs.budget import allot, least_seconds, unplanned
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.training.planning import measure_costs
from vqvae2.training.session import Event, TrainingSession

SECONDS_BETWEEN_WRITES = 30.0
"""Of the time that is spent: a kill loses no more of the count."""

CHANGE_WORTH_A_SENTENCE = 0.05
"""Of the steps of a stage."""

FIRST_STAGE = "autoencoder"


@dataclass
class Clock:
    """Counts the seconds of a run that has a budget, over all calls; other runs have no file.

    Arguments:
        folder: of the run.
        is_main: whether this process writes.
        last: when seconds were last counted, of `time.monotonic`.
    """

    folder: RunFolder
    is_main: bool
    last: float

    @classmethod
    def of(cls, session: TrainingSession) -> "Clock":
        """A clock that starts now."""
        return cls(session.folder, session.world.is_main, time.monotonic())

    def count(self, at_least: float = SECONDS_BETWEEN_WRITES) -> None:
        """Adds the seconds since the last count, if they are some."""
        passed = time.monotonic() - self.last
        if passed < at_least:
            return
        self.last += passed
        if self.is_main and (budget := self.folder.read_budget()) is not None:
            self.folder.write_budget(replace(budget, spent=budget.spent + passed))


def write_budget(session: TrainingSession) -> None:
    """Writes the budget of a new run; in an old one, stages that the user changed are settled."""
    folder, config = session.folder, session.config
    if session.budget is not None:
        folder.write_budget(session.budget)
    elif folder.exists() and (budget := folder.read_budget()) is not None:
        before, now = steps_by_stage(folder.read()), steps_by_stage(config)
        unchanged = (stage for stage in budget.open if before.get(stage) == now.get(stage))
        folder.write_budget(replace(budget, open=tuple(unchanged)))


def steps_by_stage(config: RunConfig) -> dict[str, tuple[int, ...]]:
    """All numbers of steps of the stages of a run."""
    steps: dict[str, tuple[int, ...]] = {}
    if (training := config.autoencoder.training) is not None:
        steps[FIRST_STAGE] = (training.steps,)
    if (decoder := config.decoder) is not None:
        steps["decoder"] = (decoder.training.steps, decoder.perceptual.classifier.steps)
    return steps | {f"prior{i}": (level.training.steps,) for i, level in enumerate(config.levels)}


def paced(
    session: TrainingSession, stage: str, clock: Clock
) -> Generator[Event, None, TrainingSession]:
    """The session with the last number of steps of a stage that begins now, and new ones after it.

    A stage that has begun, or whose steps the user gave, keeps them. The first stage was planned a
    moment ago.
    """
    folder, world = session.folder, session.world
    budget = folder.read_budget()
    if budget is None or stage not in budget.open:
        return session
    if stage != FIRST_STAGE:
        before = steps_by_stage(session.config)[stage][0]
        session = yield from replanned(session, budget.open, clock)
        now = steps_by_stage(session.config)[stage][0]
        if abs(now - before) > CHANGE_WORTH_A_SENTENCE * before:
            text = f"{now:,} steps in place of {before:,}, to end in {budget.hours:g} hours."
            yield Event(stage, text=text)
    world.barrier()
    if world.is_main:
        budget = folder.read_budget() or budget
        settled = tuple(name for name in budget.open if name != stage)
        # The config first: a stage that is no longer open has its last number of steps.
        folder.write_config(session.config)
        folder.write_budget(replace(budget, open=settled))
    world.barrier()
    return session


def replanned(
    session: TrainingSession, open_stages: Collection[str], clock: Clock
) -> Generator[Event, None, TrainingSession]:
    """The session with new numbers of steps for the stages that have not begun."""
    config = unplanned(session.config, open_stages)
    finished = [name for name in steps_by_stage(config) if name not in open_stages]
    costs = yield from measure_costs(replace(session, config=config), finished)
    clock.count(at_least=0.0)
    budget = session.folder.read_budget()
    assert budget is not None, "a run is replanned within its budget"
    # All processes must come to the same plan, and a run that is late still ends.
    left = session.world.gather_objects([budget.left])[0]
    seconds = max(left, least_seconds(config, costs))
    return replace(session, config=allot(config, costs, seconds))
