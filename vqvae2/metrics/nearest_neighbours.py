"""Nearest training images of samples, which show memorisation.

Legend: `N` training images, `M` samples, `D` features, `n` neighbours.
"""

import torch
from torch import Tensor

from vqvae2.metrics.precision_recall import distances


def nearest(rows: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest rows of `others` (N, D) to each of `rows` (M, D), nearest first.

    Returns:
        Indices into `others`, (M, n).
        Distances, (M, n) float64.
    """
    if len(others) < count:
        raise ValueError(f"Expected at least {count} images to search, got {len(others)}.")
    parts = [
        part.topk(count, dim=1, largest=False)
        for part in distances(rows.double(), others.double())
    ]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
