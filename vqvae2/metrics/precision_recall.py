"""Improved precision and recall (Kynkäänniemi et al. 2019).

The manifold of a set is the union of balls around its features, each with the distance to its k-th
nearest neighbour as radius. Precision is the share of samples in the manifold of the real images,
recall the share of real images in the manifold of the samples. Distances are float64.

Legend: `N M` images, `D` features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from vqvae2.metrics.rows import Rows

NEIGHBOURS = 3
DISTANCES_PER_BLOCK = 1 << 21
"""Distances that are in memory at a time: 16 MiB, whatever the number of images."""


def precision_recall(
    real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall of samples (M, D) against real features (N, D)."""
    for name, rows in (("real images", real), ("samples", samples)):
        if len(rows) <= neighbours:
            raise ValueError(
                f"Precision and recall use {neighbours} neighbours and need at least "
                f"{neighbours + 1} {name}, got {len(rows)}."
            )
    real, samples = real.double(), samples.double()
    precision = share_inside(samples, real, radii(real, neighbours))
    return precision, share_inside(real, samples, radii(samples, neighbours))


def radii(rows: Tensor, neighbours: int) -> Tensor:
    """Distance (N,) of each row (N, D) to its k-th nearest other row."""
    found = Rows()
    for block in distances(rows, rows):
        # The nearest row is the row itself, at distance 0.
        found.append(block.kthvalue(neighbours + 1, dim=1).values)
    return found.tensor()


def share_inside(rows: Tensor, centres: Tensor, radius: Tensor) -> float:
    """Share of rows (M, D) inside any ball around `centres` (N, D) of `radius` (N,)."""
    inside = sum(int((block <= radius).any(dim=1).sum()) for block in distances(rows, centres))
    return inside / len(rows)


def distances(rows: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Distances of rows (M, D) to others (N, D), in blocks of some rows.

    By differences, not by |x|^2 + |y|^2 - 2 x y, which is not 0 for equal rows.
    """
    for block in rows.split(max(1, DISTANCES_PER_BLOCK // max(1, len(others)))):
        yield torch.cdist(block, others, compute_mode="donot_use_mm_for_euclid_dist")
