"""Nearest training images of samples: did the model learn them by heart?

Legend: `N` training images, `M` samples, `D` features, `n` neighbours.
"""

import torch
from torch import Tensor

from vqvae2.metrics.precision_recall import distances


def nearest(rows: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Indices and distances, (M, n) each, of the rows of `others` (N, D) nearest to `rows` (M, D).

    Nearest first.
    """
    if len(others) < count:
        raise ValueError(f"Expected at least {count} images to search, got {len(others)}.")
    found = [
        part.topk(count, dim=1, largest=False)
        for part in distances(rows.double(), others.double())
    ]
    return torch.cat([part.indices for part in found]), torch.cat([part.values for part in found])
