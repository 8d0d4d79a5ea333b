"""What the models of presets store for the gradient, with and without recomputed activations.

    python benchmarks/recompute.py
    python benchmarks/recompute.py --presets demo pixelsnail-cifar10

Shapes are computed, numbers are not, so the largest models need no memory here. The least is the
inputs of all blocks: what their activations can be computed from. The block that is recomputed at
a moment of the backward pass comes on top.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.cli.display import table
from vqvae2.nn.recompute import recompute_blocks
from vqvae2.priors import Domain, Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import PRESETS
from vqvae2.training.prior import PriorLoss

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from storages import stored_for_the_gradient

MIB = 1 << 20


@dataclass(frozen=True)
class Options:
    """Measure stored activations.

    Arguments:
        presets: whose models.
    """

    presets: tuple[str, ...] = (
        "cifar10", "pixelcnnpp-cifar10", "pixelsnail-cifar10", "imagenet256", "ffhq1024",
    )  # fmt: skip


def measured(module: nn.Module, *inputs: object) -> list[str]:
    """MiB stored per example without and with recomputation, their ratio to the least."""
    complete, _ = stored_for_the_gradient(module, *inputs)
    recompute_blocks(module)
    stored, least = stored_for_the_gradient(module, *inputs)
    columns = [f"{number / MIB:,.1f}" for number in (complete, stored, least)]
    return [*columns, f"{complete / stored:.1f}", f"{stored / least:.2f}"]


def prior_inputs(domain: Domain) -> tuple[Tensor, Tensor, list[Tensor]]:
    """One example: values, label and coarser codes."""
    maps = [torch.zeros(1, *grid.shape, dtype=torch.int64) for grid in domain.coarser]
    values = torch.zeros(1, *domain.shape, dtype=torch.int64)
    return values, torch.zeros(1, dtype=torch.int64), maps


def models(run: RunConfig) -> dict[str, Callable[[], list[str]]]:
    """What is measured of each model of a run."""

    def autoencoder() -> list[str]:
        images = torch.rand(1, 3, run.data.size, run.data.size)
        return measured(run.autoencoder.model.build(), images)

    def prior(level: int) -> list[str]:
        domain = run.domain(level)
        module = PriorLoss(Prior(run.levels[level].prior, domain)).train()
        return measured(module, *prior_inputs(domain))

    result = {}
    if isinstance(run.autoencoder.model, VQVAEConfig):
        result["autoencoder"] = autoencoder
    for level in range(len(run.levels)):
        result[f"prior {level}"] = lambda level=level: prior(level)
    return result


def main(options: Options) -> None:
    """Prints one row per model."""
    rows = []
    for name in options.presets:
        for model, measure in models(PRESETS[name]()).items():
            with FakeTensorMode():
                rows.append([name, model, *measure()])
    columns = ["preset", "model", "all", "recompute", "least", "all / recompute", "/ least"]
    table("Stored for the gradient, MiB per example", columns, rows)


if __name__ == "__main__":
    main(tyro.cli(Options))
