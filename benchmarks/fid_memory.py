"""Peak memory of FID for 2,000 and for 20,000 pairs of images.

    python benchmarks/fid_memory.py --extractor NETWORK.pt

Each number is measured in a process of its own. Images are rendered batch by batch, so only the
metric itself could make memory grow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import tyro
from processes import in_process, peak_mib

from vqvae2.cli.display import table
from vqvae2.data.synthetic import render
from vqvae2.metrics.extractors import open_extractor, stream
from vqvae2.metrics.fid import frechet_distance

BATCH = 100


@dataclass(frozen=True)
class Options:
    """Measure the memory of FID.

    Arguments:
        extractor: Path or URL of a TorchScript network.
        counts: Numbers of pairs of images.
        size: Side of the built-in images.
    """

    extractor: str
    counts: tuple[int, ...] = (2000, 20_000)
    size: int = 32


def image_batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    for first in range(0, count, BATCH):
        yield render(torch.arange(first, first + BATCH), size, seed=seed).images


def measure(source: str, count: int, size: int) -> tuple[float, float]:
    extractor = open_extractor(source)
    real, other = (stream(extractor.features, image_batches(count, size, seed)) for seed in (1, 2))
    return frechet_distance(real, other), peak_mib()


def main() -> None:
    options = tyro.cli(Options)
    rows = []
    for count in options.counts:
        distance, peak = in_process(measure, options.extractor, count, options.size)
        rows.append([f"{count:,}", f"{distance:.4f}", f"{peak:.0f}"])
    table("FID between two seeds of the built-in images", ["pairs", "FID", "peak MiB"], rows)


if __name__ == "__main__":
    main()
