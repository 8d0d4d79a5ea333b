"""Operations on a GPU per sampled position, counted without one.

    python benchmarks/operations.py
    python benchmarks/operations.py --presets ffhq1024

A GPU launches about one kernel per operation. The counts do not depend on the numbers of channels,
so the priors of each preset are made with few. The simulated GPU is the one of the tests.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from vqvae2.cli.display import table
from vqvae2.priors import GatedPixelCNNConfig, Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import PRESETS
from vqvae2.sampling import LevelSampler, uniforms

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from simulated_cuda import SimulatedCuda


@dataclass(frozen=True)
class Options:
    """Count operations.

    Arguments:
        presets: Whose priors.
    """

    presets: tuple[str, ...] = ("imagenet256",)


def operations(run: RunConfig, level: int) -> list[int]:
    """The operations of each position of the first row, and of the first of the second."""
    config = run.levels[level].prior
    if isinstance(config, GatedPixelCNNConfig):
        config = replace(config, channels=16, residual_channels=8, num_heads=2)
    prior = Prior(config, run.domain(level)).eval()
    counts = []
    with SimulatedCuda() as cuda:
        prior.to("cuda")
        grids = prior.domain.coarser
        coarser = [torch.zeros(1, *grid.shape, dtype=torch.int64).to("cuda") for grid in grids]
        context = prior.embed_context(torch.zeros(1, dtype=torch.int64).to("cuda"), coarser)
        noise, config = uniforms([1], prior.domain.num_values, level), run.levels[level].sampling
        sampler = LevelSampler(prior, context, noise, config, None)
        for _ in range(prior.domain.grid.width + 1):
            cuda.reset()
            sampler.step()
            counts.append(cuda.counts.num_operations)
    return counts


def main() -> None:
    options = tyro.cli(Options)
    torch.set_grad_enabled(False)
    lines = []
    for name in options.presets:
        run = PRESETS[name]()
        for level in range(len(run.levels)):
            counts = operations(run, level)
            lines.append([name, f"{level}", f"{max(counts[1:-1])}", f"{counts[-1]}"])
    columns = ["preset", "level", "within a row", "at the start of a row"]
    table("operations per position on a GPU", columns, lines)


if __name__ == "__main__":
    main()
