"""What a preset's stage 1 has learnt after a minute of training, held out; evaluation not counted.

    python benchmarks/minute.py --data data/cifar10
    python benchmarks/minute.py --data data/cifar10 --plain     # the paper's plain form beside it

Prints a table and writes JSON with --out.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from vqvae2.training.autoencoder_task import AutoencoderTask

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import console, table
from vqvae2.data.images import open_images
from vqvae2.data.order import evenly_spaced
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import find_preset
from vqvae2.training.loop import new_state, train
from vqvae2.training.stages import seed_weights


@dataclass(frozen=True)
class Options:
    """Train stage 1 for a while and measure.

    Arguments:
        data: A folder of images with a validation split.
        preset: Whose stage 1.
        seconds: Of training.
        plain: Also the plain form: no steps without quantisation, no level dropout, no revival.
        images: Validation images measured.
        seed: Of weights, order and noise.
        out: JSON file.
    """

    data: str
    preset: str = "cifar10"
    seconds: float = 60.0
    plain: bool = False
    dataset: int = 2000
    seed: int = 0
    out: Path | None = None


def plain_form(run: RunConfig) -> RunConfig:
    """The same run as the paper states it: codes from data, EMA, and nothing else."""
    codebook = replace(run.autoencoder.codebooks[0], revive_below=0.0)
    return replace(
        run,
        autoencoder=replace(run.autoencoder, codebooks=(codebook,)),
        stage1=replace(run.stage1, continuous_steps=0, level_dropout=0.0),
    )


def measure(run: RunConfig, options: Options, name: str) -> dict[str, Any]:
    data = open_images(run.data)
    seed_weights(options.seed, "autoencoder")
    model = VQVAE(run.autoencoder)
    model.to(memory_format=torch.channels_last)
    task = AutoencoderTask(model, data.train, run.stage1, options.seed)
    state = new_state(task)
    begun = time.monotonic()
    for _ in train(task, state, Accelerator(cpu=True)):
        if time.monotonic() - begun >= options.seconds:
            break
    seconds = time.monotonic() - begun
    chosen = evenly_spaced(len(data.validation), options.dataset)
    images = data.validation.batches(chosen)
    measured = measure_distortion(state.average, images)
    values = {**measured.values, **measured.per_level}
    return {"form": name, "seconds": seconds, "steps": state.step, **values}


def main() -> None:
    options = tyro.cli(Options)
    run = find_preset(options.preset)(options.data)
    results = [measure(run, options, "ours")]
    if options.plain:
        results.append(measure(plain_form(run), options, "plain"))
    rows = []
    for r in results:
        cells = [f"{r['seconds']:.0f}", str(r["steps"]), f"{r['mse']:.5f}"]
        cells += [" / ".join(f"{n:.0f}" for n in r[key]) for key in ("codes_used", "perplexity")]
        cells.append(" / ".join(f"{error:.4f}" for error in r["mse_level_alone"]))
        rows.append([r["form"], *cells])
    columns = ["form", "s", "steps", "MSE", "codes used", "perplexity", "MSE alone"]
    table(f"{options.preset}, {options.dataset} validation images", columns, rows)
    if options.out:
        document = {"options": asdict(options), "torch": torch.__version__, "results": results}
        options.out.write_text(json.dumps(document, default=str, indent=2) + "\n")
        console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
