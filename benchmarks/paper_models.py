"""The paper's models: parameters, code grids, one training step each, one step of each prior.

Each autoencoder takes one training step on one image of its own size, in a process of its own,
whose peak memory is printed. The priors are counted at full width (on the meta device) and built
and stepped at a reduced one.

    python benchmarks/paper_models.py
"""

import multiprocessing
import resource
import time
from dataclasses import replace
from typing import Any

import torch

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.cli.display import table
from vqvae2.priors import Prior
from vqvae2.runs.presets import find_preset

NAMES = ("imagenet256", "ffhq1024")
REDUCED = 64


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def train_once(name: str) -> list[str]:
    run = find_preset(name)()
    before = peak_mib()
    model = VQVAE(run.autoencoder)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    images = torch.rand(1, 3, run.data.size, run.data.size)
    noise = torch.Generator().manual_seed(0)
    begun = time.perf_counter()
    result = model(images)
    result.loss.backward()
    optimizer.step()
    model.update_codebooks(result.levels, noise)
    seconds = time.perf_counter() - begun
    grids = " + ".join("x".join(map(str, code.shape[1:])) for code in result.codes)
    count = sum(parameter.numel() for parameter in model.parameters())
    memory = f"{peak_mib():.0f} (of which {before:.0f} before)"
    return [name, f"{run.data.size}", grids, f"{count:,}", f"{seconds:.2f}", memory]


@torch.no_grad()
def step_priors(name: str) -> list[list[str]]:
    run, rows = find_preset(name)(), []
    for level, config in enumerate(run.priors):
        domain = run.domain(level)
        with torch.device("meta"):
            full = sum(p.numel() for p in Prior(config, domain).parameters())
        small = replace(config, channels=REDUCED, residual_channels=REDUCED)
        prior = Prior(small, domain).eval()
        coarser = [torch.zeros(1, *grid.shape, dtype=torch.int64) for grid in domain.coarser]
        label = torch.zeros(1, dtype=torch.int64)
        cache = prior.new_cache(prior.embed_context(label, coarser), 1)
        params = prior.step(cache, label)
        reduced = sum(p.numel() for p in prior.parameters())
        shape = "x".join(map(str, params.shape))
        grid = "x".join(map(str, domain.grid.shape))
        rows.append([name, str(level), grid, f"{full:,}", f"{reduced:,}", shape])
    return rows


def apart(function: Any, name: str) -> Any:
    """The result of a function in a fresh process, so that peaks do not add up."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (name,))


def main() -> None:
    columns = ["preset", "side", "code grids", "parameters", "s a step", "peak MiB"]
    table("one training step on one image", columns, [apart(train_once, n) for n in NAMES])
    columns = ["preset", "level", "grid", "parameters", f"at width {REDUCED}", "step gives"]
    rows = [row for name in NAMES for row in apart(step_priors, name)]
    table("priors", columns, rows)


if __name__ == "__main__":
    main()
