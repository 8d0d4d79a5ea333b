"""The run for a number of hours on this machine, from what its stages cost here.

Every stage trains some steps of its own model, in the precision that it would choose, on images of
the run and random codes; nothing of it is kept. `vqvae2.runs.budget` decides, this file measures.
"""

import time
from collections.abc import Callable, Collection, Generator
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from vqvae2.autoencoder.discriminator import Discriminator
from vqvae2.autoencoder.perceptual import PerceptualDistance
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodeArray, CodesInfo, CodesInMemory
from vqvae2.data.config import DataConfig
from vqvae2.data.extraction import encoded_batches
from vqvae2.data.facts import ImageFacts, image_facts
from vqvae2.distributed import num_launched
from vqvae2.metrics.classifier import ResNet, ResNetMaps, classifier_steps
from vqvae2.metrics.efficientnet import EFFICIENTNET, weights_path
from vqvae2.precision import FixedPrecision
from vqvae2.priors import Prior
from vqvae2.runs.budget import (
    UNPLANNED,
    Budget,
    Costs,
    StageCost,
    allot,
    design,
    planned_stages,
)
from vqvae2.runs.config import RunConfig
from vqvae2.runs.decoder import CLASSIFIER, DecoderStageConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.autoencoder import AutoencoderTask, new_model
from vqvae2.training.decoder import DecoderModels, DecoderTask, on_device
from vqvae2.training.loop import Output, Part, Task, new_state, train
from vqvae2.training.perceptual_networks import load_network
from vqvae2.training.precision_choice import new_choice
from vqvae2.training.prior import PriorTask
from vqvae2.training.session import Event, TrainingSession
from vqvae2.training.speed import matrix_rate, wait_for
from vqvae2.weights import load_autoencoder

SECONDS_PER_MEASUREMENT = 2.0
MIN_STEPS_MEASURED = 8
"""The gradient penalty of the decoder stage comes at every eighth step."""

NUM_ENCODED = 256
"""Images whose encoding is measured."""

NUM_EVALUATED, NUM_SAMPLES = 2000, 100
"""Images that the end of a run evaluates, and samples that it draws, about."""

SECONDS_PER_POSITION = 0.005
"""Of sampling, beside the products; the number of positions counts, not that of images."""

LATE_STEP = UNPLANNED // 2
"""A step at which all terms of a loss are there."""

PLANNING = "plan"
"""Names the events of planning, where others name a stage."""

NOTHING = StageCost(step=0.0, example=0.0)
"""The cost of what is done."""


def design_run(data: DataConfig, hours: float, device: torch.device) -> RunConfig:
    """The config for a number of hours; the steps of its stages are not planned yet.

    Arguments:
        data: the source; its size is chosen here.
        hours: of the whole run, on as many processes as were launched.
        device: where it is trained.

    Raises:
        ValueError: hours is not positive, or the source has no images.
    """
    if not 0 < hours < float("inf"):
        raise ValueError(f"hours must be a number above 0, got {hours:g}.")
    facts = image_facts(data)
    flops = 3600 * hours * num_launched() * matrix_rate(str(device))
    return design(hours, data, facts, flops, default_network(facts))


def default_network(facts: ImageFacts) -> str:
    """The perceptual network for some images: of ImageNet for photographs, if it is installed."""
    is_labelled, has_efficientnet = facts.num_classes > 1, weights_path() is not None
    if has_efficientnet and (facts.short_side >= 64 or not is_labelled):
        return EFFICIENTNET
    return CLASSIFIER if is_labelled else ""


def plan_run(
    session: TrainingSession, hours: float, spent: float
) -> Generator[Event, None, TrainingSession]:
    """The session with the steps of all stages and its budget; takes some seconds.

    Arguments:
        session: with the config of `design_run`, maybe changed.
        hours: of the whole run.
        spent: seconds of them that have passed.

    Yields:
        An event after every measurement.

    Raises:
        ValueError: the time is too short.
    """
    begin = time.monotonic()
    costs = yield from measure_costs(session)
    # All processes must come to the same plan.
    passed = max(session.world.gather_objects([spent + time.monotonic() - begin]))
    budget = Budget(hours=hours, spent=passed, open=planned_stages(session.config))
    config = allot(session.config, costs, budget.left, passed)
    return replace(session, config=config, budget=budget)


def measure_costs(
    session: TrainingSession, finished: Collection[str] = ()
) -> Generator[Event, None, Costs]:
    """What the stages of the session's run cost, per step and altogether.

    Arguments:
        session: with the run; its trained autoencoder is used once that stage is finished.
        finished: stages that cost nothing more.

    Yields:
        An event after every measurement.
    """
    config, done = session.config, 0
    total = 2 + len(config.levels) + 2 * (config.decoder is not None)

    def event() -> Event:
        nonlocal done
        done += 1
        return Event(PLANNING, done, total)

    model = on_device(current_model(session, finished), session.device)
    autoencoder = decoder = NOTHING
    if "autoencoder" not in finished:
        autoencoder = autoencoder_cost(session, model)
    yield event()
    encoding = encoding_seconds(session, model)
    yield event()
    classifier_step = 0.0
    if config.decoder is not None:
        if "decoder" not in finished:
            decoder = decoder_cost(session, model, config.decoder)
        yield event()
        if "decoder" not in finished and config.decoder.network_name == CLASSIFIER:
            classifier_step = classifier_cost(session, config.decoder)
        yield event()
    levels = []
    for level in range(len(config.levels)):
        is_finished = f"prior{level}" in finished
        levels.append(NOTHING if is_finished else level_cost(session, level))
        yield event()
    costs = Costs(
        autoencoder=autoencoder,
        decoder=decoder if config.decoder is not None else None,
        classifier_step=classifier_step,
        levels=tuple(levels),
    )
    return replace(costs, fixed=fixed_seconds(session, costs, encoding, finished))


def current_model(session: TrainingSession, finished: Collection[str]) -> VQVAE:
    """The trained autoencoder, or a new one while it is not trained."""
    if "autoencoder" not in finished:
        return new_model(session.config)
    model = load_autoencoder(session.folder.autoencoder)
    assert isinstance(model, VQVAE), "a run with a budget is not one on pixels"
    return model


def fixed_seconds(
    session: TrainingSession, costs: Costs, encoding: float, finished: Collection[str] = ()
) -> float:
    """Seconds of extraction, evaluation and samples, from those of encoding an image."""
    config, splits = session.config, session.splits
    extracted = 0.0
    if "autoencoder" not in finished:
        extracted = (len(session.augmented) + len(splits.validation)) / session.world.size
    evaluated = min(NUM_EVALUATED, len(splits.validation))
    passes = sum(cost.example for cost in costs.levels)
    positions = sum(grid.num_positions for grid in config.grids())
    return (
        extracted * encoding
        + evaluated * (4 * encoding + passes)
        + 2 * NUM_SAMPLES * passes
        + 2 * positions * SECONDS_PER_POSITION
    )


def autoencoder_cost(session: TrainingSession, model: VQVAE) -> StageCost:
    """The cost of stage 1; starts the codebooks of `model`."""
    stage = session.config.autoencoder
    assert stage.training is not None, "a design has an autoencoder"
    stage = replace(stage, training=endless(stage.training), continuous_steps=0)
    task = AutoencoderTask(model, session.splits.train, stage, session.config.seed, session.world)
    return stage_cost(task, step_seconds(session, task, first=0))


def decoder_cost(session: TrainingSession, model: VQVAE, stage: DecoderStageConfig) -> StageCost:
    """The cost of the decoder stage, before and after its discriminator begins."""
    config, device = session.config, session.device
    stage = replace(stage, training=endless(stage.training))
    network: nn.Module | None = None
    if stage.network_name == CLASSIFIER:
        depth = stage.perceptual.classifier.depth
        network = ResNetMaps(ResNet(config.num_classes, depth, config.data.size))
    elif stage.network_name:
        network = load_network(stage.network_name)
    models = DecoderModels(
        model,
        on_device(SharpDecoder(stage.model, model.config), device),
        on_device(Discriminator(stage.discriminator), device),
        None if network is None else on_device(PerceptualDistance(network), device),
    )
    task = DecoderTask(models, session.splits.train, stage, config.seed, session.world)
    early, late = (step_seconds(session, task, first) for first in (0, LATE_STEP))
    share = stage.discriminator_step / UNPLANNED
    return stage_cost(task, share * early + (1 - share) * late)


def classifier_cost(session: TrainingSession, stage: DecoderStageConfig) -> float:
    """Seconds of a step of the classifier that is the perceptual network."""
    training = replace(stage.perceptual.classifier, steps=UNPLANNED)
    steps = classifier_steps(
        session.splits.train, session.config.num_classes, training, session.device
    )
    return measured(session, lambda: next(steps, None))


def level_cost(session: TrainingSession, level: int) -> StageCost:
    """The cost of the prior of a level, on random codes."""
    config = session.config
    level_config = config.levels[level]
    level_config = replace(level_config, training=endless(level_config.training))
    prior = Prior(level_config.prior, config.domain(level)).to(session.device)
    task = PriorTask(
        prior,
        level,
        random_codes(config, session.splits.train.labels[:4096]),
        level_config,
        seed=config.seed,
        world=session.world,
        augmentation=config.augmentation,
    )
    return stage_cost(task, step_seconds(session, task, first=0))


def random_codes(config: RunConfig, labels: Tensor) -> CodesInMemory:
    """Codes for as many images as there are labels, (N,)."""
    grids, noise = config.grids(), np.random.default_rng(config.seed)
    info = CodesInfo(autoencoder="", dataset="", grids=tuple(grids), num_images=len(labels))
    levels: list[CodeArray] = [
        noise.integers(grid.num_codes, size=(len(labels), *grid.shape)).astype(np.uint32)
        for grid in grids
    ]
    return CodesInMemory(info, levels, labels)


def encoding_seconds(session: TrainingSession, model: VQVAE) -> float:
    """Seconds of encoding an image, reading it included."""
    dataset = session.splits.train
    indices = torch.arange(min(NUM_ENCODED, len(dataset)))

    def encode() -> None:
        for _ in encoded_batches(model, dataset, indices):
            pass

    return measured(session, encode, at_least=1) / len(indices)


def endless(training: TrainingConfig) -> TrainingConfig:
    """The training with so many steps that a measurement does not reach the last."""
    return replace(training, steps=UNPLANNED)


def stage_cost(task: Task[Part, Output], step: float) -> StageCost:
    """The cost of a stage whose steps take `step` seconds.

    A step takes about three times as long as a forward pass; validations also compute metrics.
    """
    return StageCost(step=step, example=step / (2 * task.training.batch))


def step_seconds(session: TrainingSession, task: Task[Part, Output], first: int) -> float:
    """Seconds of a training step, measured from step `first` on; changes the task's modules."""
    state = new_state(task, precision_of(session, task))
    state.step = first
    with closing(train(task, state, session.accelerator)) as steps:
        seconds = measured(session, lambda: next(steps, None))
    session.accelerator.free_memory()
    return seconds


def precision_of(session: TrainingSession, task: Task[Part, Output]) -> FixedPrecision:
    """The precision in which the task would be trained."""
    precision = session.config.precision
    return new_choice(session, task).precision if precision == "auto" else precision


def measured(
    session: TrainingSession, call: Callable[[], object], at_least: int = MIN_STEPS_MEASURED
) -> float:
    """Seconds of a call, the mean over some seconds and the slowest of the processes.

    All processes call as often: calls may exchange gradients.
    """
    device, world = str(session.device), session.world

    def seconds(count: int) -> float:
        wait_for(device)
        begin = time.perf_counter()
        for _ in range(count):
            call()
        wait_for(device)
        return max(world.gather_objects([(time.perf_counter() - begin) / count]))

    seconds(1)  # which also allocates memory, and starts codebooks
    count = max(at_least, int(SECONDS_PER_MEASUREMENT / seconds(1)))
    return seconds(count)
