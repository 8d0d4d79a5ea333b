"""All priors with equal numbers of parameters, on the same values.

    python benchmarks/priors.py --run runs/cifar10              # codes: equal examples
    python benchmarks/priors.py --data data/cifar10 --minutes 5 # pixels: equal time

On codes every prior takes the same steps over the same examples in the same order; on pixels,
where architectures differ most in cost, every prior trains for the same time. Widths are chosen so
that all have about the same number of parameters. Prints a table and writes JSON.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator
from processes import write_results

from vqvae2.cli.display import console, table
from vqvae2.code_grid import CodeGrid
from vqvae2.data.codes import CodeDataset, PixelCodes, open_codes
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
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
from vqvae2.randomness import seeded_weights
from vqvae2.runs.config import LevelConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.training import TrainingConfig
from vqvae2.sampling import SamplingConfig, sample_codes
from vqvae2.training.loop import new_state, train
from vqvae2.training.prior import PriorTask, prior_of
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
        level: The level whose codes are modelled.
        millions: Parameters of each prior, in millions.
        steps: Steps of training on codes.
        batch: Examples per step.
        minutes: Minutes of training per prior on pixels.
        only: Names of priors; all by default.
        seed: Seed of weights, order and noise.
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
    """The same architecture with growing widths, all of its widths in proportion."""
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


def num_parameters(config: PriorConfig, domain: Domain) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Prior(config, domain).parameters())


def sized(config: PriorConfig, domain: Domain, count: float) -> PriorConfig:
    """The width whose number of parameters is nearest to `count`."""
    return min(widths(config), key=lambda wide: abs(num_parameters(wide, domain) - count))


def fit(
    prior: Prior, level: int, codes: CodeDataset, options: Options, seconds: float
) -> tuple[Prior, float, int]:
    """Trains with the loop of a run; the prior with averaged weights, seconds and steps."""
    timed = math.isfinite(seconds)
    training = TrainingConfig(
        steps=1_000_000 if timed else options.steps,
        batch=options.batch,
        warmup_steps=50,
        # If time ends the training, the last step is not known in advance.
        cooldown=0.0 if timed else 0.5,
        average_decay=0.99,
    )
    config = LevelConfig(prior=prior.config, training=training)
    task = PriorTask(prior, level, codes, config, seed=options.seed)
    state = new_state(task)
    start = time.perf_counter()
    for progress in train(task, state, Accelerator(cpu=True)):
        elapsed = time.perf_counter() - start
        if progress.step % 100 == 0:
            nats = float(progress.metrics["nats_per_code"])
            console.print(f"  step {progress.step}, {elapsed:.0f} s, {nats:.3f} nats")
        if elapsed > seconds:
            break
    return prior_of(state.average), time.perf_counter() - start, state.step


@torch.no_grad()
def ms_per_value(prior: Prior, level: int, codes: CodeDataset, batch: int) -> float:
    """Milliseconds per value over the middle row, where attention has half of its keys."""
    maps, labels = codes.batch(torch.arange(batch))
    domain, noise = prior.domain, torch.full((batch,), 0.5, dtype=torch.float64)
    cache, previous = prior.new_cache(prior.embed_context(labels, maps[:level]), batch), labels
    position, row = cache.position, domain.grid.height // 2
    cache.index = row * position.width * domain.channels
    position.move_to(row * position.width)
    count, times = position.width * domain.channels, []
    for _ in range(3):
        start = time.perf_counter()
        for _ in range(count):
            previous = sample_codes(prior.step(cache, previous), noise, SamplingConfig())
        times.append(1e3 * (time.perf_counter() - start) / count)
    return min(times)


def compare(
    train_codes: CodeDataset,
    validation: CodeDataset,
    domain: Domain,
    options: Options,
    seconds: float,
) -> None:
    level, lines, results = len(domain.coarser), [], {}
    for name, base in FAMILY.items():
        if options.only and name not in options.only:
            continue
        # The two that have a mixture of logistics in their papers have it here.
        mixed = domain.ordered and isinstance(base, PixelCNNPPConfig | PixelSNAILConfig)
        domain = replace(domain, num_mixtures=10 if mixed else 0)
        config = sized(base, domain, options.millions * 1e6)
        with seeded_weights(options.seed, "benchmark"):
            prior = Prior(config, domain)
        console.print(f"{name}: {num_parameters(config, domain):,} parameters, {config}")
        average, elapsed, steps = fit(prior, level, train_codes, options, seconds)
        limit = 500 if domain.ordered else 5000
        nats = nats_per_code(average, validation, limit, 50)
        train_nats = nats_per_code(average, train_codes, limit, 50)
        step_ms = ms_per_value(average, level, validation, 16)
        results[name] = {
            "parameters": num_parameters(config, domain),
            "config": str(config),
            "examples": steps * options.batch,
            "seconds": elapsed,
            "validation_nats": nats,
            "train_nats": train_nats,
            "validation_bits": nats / math.log(2),
            "ms_per_value_at_16": step_ms,
        }
        metric = nats / math.log(2) if domain.ordered else nats
        lines.append(
            [name, f"{num_parameters(config, domain) / 1e6:.2f}", f"{steps * options.batch:,}",
             f"{elapsed:.0f}", f"{metric:.3f}", f"{nats - train_nats:+.3f}", f"{step_ms:.2f}"]
        )  # fmt: skip
        write_results(options.out, results)
    unit = "bits per dimension" if domain.ordered else "nats per code"
    columns = ["prior", "M", "examples", "s", unit, "gap nats", "ms per value, 16 images"]
    table("validation", columns, lines)


def compare_on_codes(folder: RunFolder, options: Options) -> None:
    digest, levels = code_fingerprint(load_autoencoder(folder.autoencoder)), options.level + 1
    train_codes = open_codes(folder.codes, "train", digest, levels)
    validation = open_codes(folder.codes, "validation", digest, levels)
    compare(train_codes, validation, folder.read().domain(options.level), options, math.inf)


def compare_on_pixels(options: Options) -> None:
    splits = open_images(DataConfig(source=options.data, size=32))
    domain = Domain(
        grid=CodeGrid(256, 32, 32),
        num_classes=max(1, len(splits.class_names)),
        channels=3,
        ordered=True,
    )
    seconds = 60 * options.minutes
    compare(PixelCodes(splits.train), PixelCodes(splits.validation), domain, options, seconds)


def main() -> None:
    options = tyro.cli(Options)
    if options.run is not None:
        compare_on_codes(RunFolder(options.run), options)
    if options.data:
        compare_on_pixels(replace(options, batch=min(options.batch, 16)))


if __name__ == "__main__":
    main()
