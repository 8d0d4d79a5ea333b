"""The paper's models: parameters, code grids, one training step each, one step of each prior.

Each autoencoder takes one training step on one image of its size, in a process of its own, with
its peak memory. The priors are counted at full width (on the meta device), and built and stepped
at a reduced width.

    python benchmarks/paper_models.py
"""

import time
from dataclasses import replace

import torch
from processes import in_process, peak_mib

from vqvae2.cli.display import table
from vqvae2.priors import Prior
from vqvae2.runs.presets import find_preset

NAMES = ("imagenet256", "ffhq1024")
REDUCED = 64


def train_once(name: str) -> list[str]:
    run = find_preset(name)()
    before = peak_mib()
    model = run.autoencoder.model.build()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4, fused=True)
    images = torch.rand(1, 3, run.data.size, run.data.size)
    noise = torch.Generator().manual_seed(0)
    start = time.perf_counter()
    result = model(images)
    result.loss.backward()
    optimizer.step()
    model.update_codebooks(result.levels, noise)
    seconds = time.perf_counter() - start
    grids = " + ".join("x".join(map(str, codes.shape[1:])) for codes in result.codes)
    count = sum(parameter.numel() for parameter in model.parameters())
    memory = f"{peak_mib():.0f} (of which {before:.0f} before the model)"
    return [name, f"{run.data.size}", grids, f"{count:,}", f"{seconds:.2f}", memory]


@torch.no_grad()
def step_priors(name: str) -> list[list[str]]:
    run, rows = find_preset(name)(), []
    for number, level in enumerate(run.levels):
        domain = run.domain(number)
        with torch.device("meta"):
            full = sum(p.numel() for p in Prior(level.prior, domain).parameters())
        small = replace(level.prior, channels=REDUCED, residual_channels=REDUCED)
        prior = Prior(small, domain).eval()
        coarser = [torch.zeros(1, *grid.shape, dtype=torch.int64) for grid in domain.coarser]
        label = torch.zeros(1, dtype=torch.int64)
        cache = prior.new_cache(prior.embed_context(label, coarser), 1)
        logits = prior.step(cache, label)
        reduced = sum(p.numel() for p in prior.parameters())
        shape = "x".join(map(str, logits.shape))
        grid = "x".join(map(str, domain.grid.shape))
        rows.append([name, str(number), grid, f"{full:,}", f"{reduced:,}", shape])
    return rows


def main() -> None:
    columns = ["preset", "side", "code grids", "parameters", "s per step", "peak MiB"]
    table("one training step on one image", columns, [in_process(train_once, n) for n in NAMES])
    columns = ["preset", "level", "grid", "parameters", f"at width {REDUCED}", "logits of a step"]
    rows = [row for name in NAMES for row in in_process(step_priors, name)]
    table("priors", columns, rows)


if __name__ == "__main__":
    main()
