"""FID streams: peak memory for 2,000 and for 20,000 pairs of images.

    python benchmarks/fid_memory.py --extractor NETWORK.pt

Each number runs in a process of its own, whose peak memory is printed; images are drawn anew for
each batch, so nothing but the metric could grow.
"""

import multiprocessing
import resource
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import tyro

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
        counts: Pairs of images.
        size: Side of the built-in images.
    """

    extractor: str
    counts: tuple[int, ...] = (2000, 20_000)
    size: int = 32


def dataset(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    for first in range(0, count, BATCH):
        yield render(torch.arange(first, first + BATCH), size, seed=seed).images


def measure(where: str, count: int, size: int) -> tuple[float, float]:
    extractor = open_extractor(where)
    real, other = (stream(extractor.features, dataset(count, size, seed)) for seed in (1, 2))
    distance = frechet_distance(real, other)
    return distance, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    options = tyro.cli(Options)
    rows = []
    for count in options.counts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (options.extractor, count, options.size)
            distance, peak = pool.apply(measure, arguments)
        rows.append([f"{count:,}", f"{distance:.4f}", f"{peak:.0f}"])
    table("FID between two seeds of the built-in images", ["pairs", "FID", "peak MiB"], rows)


if __name__ == "__main__":
    main()
