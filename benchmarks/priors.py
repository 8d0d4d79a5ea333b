"""Every prior of the family at equal parameters, on the same values.

    python benchmarks/priors.py --run runs/cifar10              # codes: equal examples
    python benchmarks/priors.py --data data/cifar10 --minutes 5 # pixels: equal time

On codes every prior takes the same steps over the same examples in the same order; on pixels,
where architectures differ most in cost, every prior trains for the same time. Widths are chosen so
that each has about the same number of parameters. Prints a table and writes JSON.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from accelerate import Accelerator
from vqvae2.training.prior_task import PriorLoss, PriorTask

from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.data.codes import CodeDataset, read_codes
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.pixels import PixelCodes
from vqvae2.metrics.likelihood import nats_per_code
from vqvae2.priors import (
    DiagonalBiLSTMConfig,
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    Prior,
    PriorConfig,
    RowLSTMConfig,
    TransformerConfig,
)
from vqvae2.runs.config import TrainingConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig, sample_codes
from vqvae2.training.loop import new_state, train
from vqvae2.training.stages import seed_weights
from vqvae2.weights import code_fingerprint, load_autoencoder

FAMILY: dict[str, PriorConfig] = {
    "pixelcnn": PixelCNNConfig(num_layers=12),
    "row-lstm": RowLSTMConfig(num_layers=5),
    "diagonal-bilstm": DiagonalBiLSTMConfig(num_layers=5),
    "gated-pixelcnn": GatedPixelCNNConfig(num_layers=8, kernel=3),
    "gated-pixelcnn, attention": GatedPixelCNNConfig(num_layers=8, kernel=3, attention_every=4),
    "pixelcnnpp": PixelCNNPPConfig(num_layers=2, dropout=0.1),
    "pixelsnail": PixelSNAILConfig(num_blocks=3, num_layers=3),
    "transformer": TransformerConfig(num_layers=8),
}


@dataclass(frozen=True)
class Options:
    """Train and measure every prior.

    Arguments:
        run: A run folder with codes, to compare priors on codes.
        data: A folder of images, to compare priors on pixels.
        level: Of the codes.
        millions: Parameters of each.
        steps: Of training on codes.
        batch: Examples a step.
        minutes: Of training each on pixels.
        only: Names of priors; all by default.
        seed: Of weights, order and noise.
        out: JSON file.
    """

    run: Path | None = None
    data: str = ""
    level: int = 1
    millions: float = 2.0
    steps: int = 800
    batch: int = 64
    minutes: float = 5.0
    only: tuple[str, ...] = ()
    seed: int = 0
    out: Path = Path("build/priors.json")


def widths(config: PriorConfig) -> Iterator[PriorConfig]:
    """The same architecture in growing widths; what belongs together grows together."""
    step = 16 if isinstance(config, TransformerConfig) else 4
    for channels in range(32, 513, step):
        wide = replace(config, channels=channels, num_conditioning_blocks=2, dropout=0.1)
        match wide:
            case GatedPixelCNNConfig():
                yield replace(wide, residual_channels=channels)
            case RowLSTMConfig() | DiagonalBiLSTMConfig():
                yield replace(wide, state_channels=channels)
            case PixelSNAILConfig():
                yield replace(wide, value_size=channels)
            case _:
                yield wide


def parameters(config: PriorConfig, domain: Domain) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Prior(config, domain).parameters())


def sized(config: PriorConfig, domain: Domain, count: float) -> PriorConfig:
    """The width whose parameters come nearest to `count`."""
    return min(widths(config), key=lambda wide: abs(parameters(wide, domain) - count))


def fit(
    prior: Prior, level: int, codes: CodeDataset, options: Options, seconds: float
) -> tuple[Any, float, int]:
    """Trains by the same loop as a run; the averaged weights, seconds and steps."""
    timed = math.isfinite(seconds)
    config = TrainingConfig(
        steps=1_000_000 if timed else options.steps,
        batch=options.batch,
        warmup_steps=50,
        # Where time ends the training no step is known to be the last.
        cooldown=0.0 if timed else 0.5,
        average_decay=0.99,
    )
    task = PriorTask(prior, level, codes, config, options.seed)
    state = new_state(task)
    begun = time.perf_counter()
    for progress in train(task, state, Accelerator(cpu=True)):
        if progress.step % 100 == 0:
            nats = float(progress.figures["nats_per_code"])
            spent = time.perf_counter() - begun
            console.print(f"  step {progress.step}, {spent:.0f} s, {nats:.3f} nats")
        if time.perf_counter() - begun > seconds:
            break
    return state.average, time.perf_counter() - begun, state.step


@torch.no_grad()
def milliseconds_a_value(prior: Prior, level: int, codes: CodeDataset, batch: int) -> float:
    """At the middle of the map, where attention has half of its keys; a whole row of positions."""
    maps, labels = codes.batch(torch.arange(batch))
    domain, noise = prior.domain, torch.full((batch,), 0.5, dtype=torch.float64)
    cache, previous = prior.new_cache(prior.embed_context(labels, maps[:level]), batch), labels
    place, row = cache.network.position, domain.grid.height // 2
    place.index, cache.index = row * place.width, row * place.width * domain.channels
    place.flat_index.fill_(place.index)
    place.row.fill_(row)
    count, took = place.width * domain.channels, []
    for _ in range(3):
        begun = time.perf_counter()
        for _ in range(count):
            previous = sample_codes(prior.step(cache, previous), noise, SamplingConfig())
        took.append(1e3 * (time.perf_counter() - begun) / count)
    return min(took)


def compare(
    train_codes: CodeDataset,
    validation: CodeDataset,
    domain: Domain,
    options: Options,
    seconds: float,
) -> dict[str, Any]:
    level, lines, results = len(domain.coarser), [], {}
    for name, base in FAMILY.items():
        if options.only and name not in options.only:
            continue
        # The two that bring a mixture of logistics in their papers bring it here.
        mixed = domain.ordered and isinstance(base, PixelCNNPPConfig | PixelSNAILConfig)
        domain = replace(domain, num_mixtures=10 if mixed else 0)
        config = sized(base, domain, options.millions * 1e6)
        seed_weights(options.seed, "benchmark")
        prior = Prior(config, domain)
        console.print(f"{name}: {parameters(config, domain):,} parameters, {config}")
        module, spent, steps = fit(prior, level, train_codes, options, seconds)
        assert isinstance(module, PriorLoss)
        limit = 500 if domain.ordered else 5000
        nats = nats_per_code(module.prior, validation, limit, 50)
        seen = nats_per_code(module.prior, train_codes, limit, 50)
        step_ms = milliseconds_a_value(module.prior, level, validation, 16)
        results[name] = {
            "parameters": parameters(config, domain),
            "config": str(config),
            "examples": steps * options.batch,
            "seconds": spent,
            "validation_nats": nats,
            "train_nats": seen,
            "validation_bits": nats / math.log(2),
            "ms_a_value_at_16": step_ms,
        }
        figure = nats / math.log(2) if domain.ordered else nats
        lines.append(
            [name, f"{parameters(config, domain) / 1e6:.2f}", f"{steps * options.batch:,}",
             f"{spent:.0f}", f"{figure:.3f}", f"{nats - seen:+.3f}", f"{step_ms:.2f}"]
        )  # fmt: skip
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    unit = "bits per dimension" if domain.ordered else "nats per code"
    columns = ["prior", "M", "examples", "s", unit, "gap nats", "ms a value, 16 images"]
    table("held out", columns, lines)
    return results


def on_codes(folder: RunFolder, options: Options) -> None:
    run, known = folder.read(), code_fingerprint(load_autoencoder(folder.model / "autoencoder"))
    levels = options.level + 1
    train_codes = read_codes(folder.codes, "train", known, levels)
    validation = read_codes(folder.codes, "validation", known, levels)
    compare(train_codes, validation, run.domain(options.level), options, math.inf)


def on_pixels(options: Options) -> None:
    data = open_images(DataConfig(source=options.data, size=32))
    domain = Domain(
        grid=CodeGrid(256, 32, 32),
        num_classes=max(1, len(data.class_names)),
        channels=3,
        ordered=True,
    )
    seconds = 60 * options.minutes
    compare(PixelCodes(data.train), PixelCodes(data.validation), domain, options, seconds)


def main() -> None:
    options = tyro.cli(Options)
    if options.run is not None:
        on_codes(RunFolder(options.run), options)
    if options.data:
        on_pixels(replace(options, batch=min(options.batch, 16)))


if __name__ == "__main__":
    main()
