"""Does training in bfloat16 end where training in float32 ends? Several seeds of each.

    python benchmarks/precision.py DATA

Trains the autoencoder of the preset `cifar10` and then the prior of its finest level, with equal
steps, batches and noise in both precisions, and evaluates them in float32 on held-out images. All
priors learn the codes of one autoencoder, so their nats compare. Prints a line per seed, the means
with the standard deviation over seeds, and writes JSON.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import tyro
from accelerate import Accelerator
from processes import write_results
from torch import Tensor, nn

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import console, table
from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.data.images import ImageDataset, open_images
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.likelihood import nats_per_code
from vqvae2.precision import FixedPrecision
from vqvae2.priors import Prior
from vqvae2.randomness import seeded_weights
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import find_preset
from vqvae2.training.autoencoder import AutoencoderTask, new_model
from vqvae2.training.loop import Task, new_state, train
from vqvae2.training.prior import PriorTask, prior_of

PRECISIONS: tuple[FixedPrecision, ...] = ("float32", "bfloat16")
LEVEL = 1
BATCH = 250


@dataclass(frozen=True)
class Options:
    """Compare what float32 and bfloat16 learn.

    Arguments:
        data: A folder of images with one sub-folder per class, such as CIFAR-10.
        steps: Steps of each autoencoder.
        prior_steps: Steps of each prior.
        seeds: Seeds per precision.
        images: Training images whose codes the priors learn.
        validation: Held-out images.
        out: JSON file.
    """

    data: Annotated[str, tyro.conf.Positional]
    steps: int = 1000
    prior_steps: int = 800
    seeds: int = 3
    images: int = 20_000
    validation: int = 2000
    out: Path = Path("build/precision.json")


@dataclass(frozen=True)
class Trained:
    """What training ended with, and its speed."""

    model: nn.Module
    seconds_per_step: float


def fit(task: Task, precision: FixedPrecision) -> Trained:
    """Trains to the end; the averaged model."""
    state = new_state(task, precision)
    start = time.perf_counter()
    for _ in train(task, state, Accelerator(cpu=True)):
        pass
    return Trained(state.average, (time.perf_counter() - start) / task.training.steps)


def fit_autoencoder(
    run: RunConfig, dataset: ImageDataset, steps: int, precision: FixedPrecision
) -> Trained:
    assert run.autoencoder.training is not None
    training = replace(run.autoencoder.training, steps=steps)
    stage = replace(run.autoencoder, training=training)
    model = new_model(run).to(memory_format=torch.channels_last)
    return fit(AutoencoderTask(model, dataset, stage, run.seed), precision)


def fit_prior(
    run: RunConfig, codes: CodesInMemory, steps: int, precision: FixedPrecision
) -> Trained:
    level = run.levels[LEVEL]
    level = replace(level, training=replace(level.training, steps=steps))
    with seeded_weights(run.seed, f"prior{LEVEL}"):
        prior = Prior(level.prior, run.domain(LEVEL))
    return fit(PriorTask(prior, LEVEL, codes, level, seed=run.seed), precision)


def batches(dataset: ImageDataset, count: int) -> Iterator[Tensor]:
    """Up to `count` images of a dataset in [0, 1], evenly spread over it."""
    indices = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).long()
    for part in indices.split(BATCH):
        yield dataset.batch(part).float() / 255


@torch.no_grad()
def codes_of(model: VQVAE, run: RunConfig, images: Iterator[Tensor]) -> CodesInMemory:
    """The codes of images, without labels."""
    maps = [torch.cat(level) for level in zip(*(model.encode(x) for x in images), strict=True)]
    count = len(maps[0])
    info = CodesInfo(autoencoder="", dataset="", grids=tuple(run.grids()), num_images=count)
    return CodesInMemory(info, [m.numpy() for m in maps], torch.zeros(count, dtype=torch.int64))


def compare(
    name: str, seeds: range, measure: Callable[[int, FixedPrecision], tuple[float, float]]
) -> dict[str, object]:
    """One metric of all seeds in both precisions, as a table.

    Arguments:
        name: of the metric, lower is better.
        measure: the metric and the seconds per step, of a seed in a precision.
    """
    values: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    seconds: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for seed in seeds:
        for precision in PRECISIONS:
            value, time_per_step = measure(seed, precision)
            console.print(f"{name}, seed {seed}, {precision}: {value:.6f}")
            values[precision].append(value)
            seconds[precision].append(time_per_step)
    rows = [
        [f"seed {seed}", *(f"{values[precision][row]:.6f}" for precision in PRECISIONS)]
        for row, seed in enumerate(seeds)
    ]
    means = {precision: statistics.mean(values[precision]) for precision in PRECISIONS}
    spreads = {precision: statistics.stdev(values[precision]) for precision in PRECISIONS}
    rows.append(
        ["mean", *(f"{means[p]:.6f} +- {spreads[p]:.6f}" for p in PRECISIONS)],
    )
    rows.append(
        ["ms per step", *(f"{1000 * statistics.mean(seconds[p]):.1f}" for p in PRECISIONS)]
    )
    table(name, ["", *PRECISIONS], rows)
    difference = means["bfloat16"] - means["float32"]
    percent = 100 * difference / means["float32"]
    console.print(
        f"bfloat16 - float32: {difference:+.6f} ({percent:+.2f} %), "
        f"{abs(difference) / max(spreads.values()):.2f} standard deviations of a seed\n"
    )
    return {"values": values, "means": means, "spreads": spreads, "seconds_per_step": seconds}


def main() -> None:
    options = tyro.cli(Options)
    run = find_preset("cifar10")(options.data, 1)
    splits = open_images(run.data)
    seeds = range(options.seeds)
    models: dict[tuple[int, str], nn.Module] = {}

    def autoencoder(seed: int, precision: FixedPrecision) -> tuple[float, float]:
        trained = fit_autoencoder(replace(run, seed=seed), splits.train, options.steps, precision)
        model = models[seed, precision] = trained.model
        assert isinstance(model, VQVAE)
        held_out = batches(splits.validation, options.validation)
        return measure_distortion(model, held_out).flat()["mse"], trained.seconds_per_step

    results: dict[str, object] = {"mse": compare("validation MSE", seeds, autoencoder)}
    encoder = models[0, "float32"]
    assert isinstance(encoder, VQVAE)
    codes = codes_of(encoder, run, batches(splits.train, options.images))
    held_out = codes_of(encoder, run, batches(splits.validation, options.validation))

    def prior(seed: int, precision: FixedPrecision) -> tuple[float, float]:
        trained = fit_prior(replace(run, seed=seed), codes, options.prior_steps, precision)
        model = prior_of(trained.model)
        return nats_per_code(model, held_out, len(held_out), BATCH), trained.seconds_per_step

    results["nats"] = compare("validation nats per code", seeds, prior)
    write_results(options.out, results)


if __name__ == "__main__":
    main()
