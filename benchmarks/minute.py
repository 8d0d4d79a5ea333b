"""How good an autoencoder is after one minute of training, on validation images.

    python benchmarks/minute.py --data data/cifar10
    python benchmarks/minute.py --data data/cifar10 --plain     # also the paper's plain form

Evaluation is not part of the minute. Prints a table and writes JSON with --out.
"""

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator
from processes import write_results

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import console, table
from vqvae2.data.images import open_images
from vqvae2.data.order import evenly_spaced
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.results import Measurement
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import find_preset
from vqvae2.training.autoencoder import AutoencoderTask, new_model
from vqvae2.training.loop import new_state, train


@dataclass(frozen=True)
class Options:
    """Train an autoencoder for some time and measure it.

    Arguments:
        data: A folder of images with a validation split.
        preset: The preset whose autoencoder is trained.
        seconds: Seconds of training.
        plain: Also the plain form: no steps without quantisation, no level dropout, no restarts.
        images: Number of validation images.
        seed: Seed of weights, order and noise.
        out: JSON file.
    """

    data: str
    preset: str = "cifar10"
    seconds: float = 60.0
    plain: bool = False
    images: int = 2000
    seed: int = 0
    out: Path | None = None


@dataclass(frozen=True)
class Result:
    """What one form reached."""

    form: str
    seconds: float
    steps: int
    measurement: Measurement


def plain_form(run: RunConfig) -> RunConfig:
    """The same run as the paper describes it: codes from data, moving averages, nothing else."""
    stage = run.autoencoder
    codebooks = tuple(replace(codebook, revive_below=0.0) for codebook in stage.model.codebooks)
    model = replace(stage.model, codebooks=codebooks)
    stage = replace(stage, model=model, continuous_steps=0, level_dropout=0.0)
    return replace(run, autoencoder=stage)


def measure(run: RunConfig, options: Options, form: str) -> Result:
    splits = open_images(run.data)
    model = new_model(run)
    model.to(memory_format=torch.channels_last)
    task = AutoencoderTask(model, splits.train, run.autoencoder, run.seed)
    state = new_state(task)
    start = time.monotonic()
    for _ in train(task, state, Accelerator(cpu=True)):
        if time.monotonic() - start >= options.seconds:
            break
    seconds = time.monotonic() - start
    indices = evenly_spaced(len(splits.validation), options.images)
    assert isinstance(state.average, VQVAE)
    distortion = measure_distortion(state.average, splits.validation.batches(indices))
    return Result(form, seconds, state.step, distortion)


def main() -> None:
    options = tyro.cli(Options)
    run = replace(find_preset(options.preset)(options.data), seed=options.seed)
    results = [measure(run, options, "ours")]
    if options.plain:
        results.append(measure(plain_form(run), options, "plain"))
    rows = []
    for result in results:
        values = result.measurement
        used, perplexity, alone = (
            " / ".join(f"{value:{digits}}" for value in values.levels(name))
            for name, digits in
            [("codes_used", ".0f"), ("perplexity", ".0f"), ("mse_level_alone", ".4f")]
        )  # fmt: skip
        cells = [f"{result.seconds:.0f}", str(result.steps), f"{values['mse']:.5f}"]
        rows.append([result.form, *cells, used, perplexity, alone])
    columns = ["form", "s", "steps", "MSE", "codes used", "perplexity", "MSE alone"]
    table(f"{options.preset}, {options.images:,} validation images", columns, rows)
    if options.out:
        settings = {name: str(value) for name, value in asdict(options).items()}
        documents = [asdict(result) for result in results]
        write_results(
            options.out, {"options": settings, "torch": torch.__version__, "results": documents}
        )
        console.print(f"All results are in {options.out}.")


if __name__ == "__main__":
    main()
