"""Improved precision and recall: who lies in whose neighbourhood (Kynkäänniemi et al. 2019).

The manifold of a set is the union of balls around its features, each reaching to its k-th nearest
neighbour. Precision is the share of samples in the manifold of the real images, recall the share
of real images in that of the samples. All distances are computed, in float64, a part at a time.

Legend: `N M` images, `D` features.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

NEIGHBOURS = 3
AT_ONCE = 1024  # rows whose distances to all others are held


def precision_recall(
    real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Precision and recall of samples (M, D) against real features (N, D)."""
    for name, rows in (("real images", real), ("samples", samples)):
        if len(rows) <= neighbours:
            raise ValueError(
                f"Precision and recall look at {neighbours} neighbours and need at least "
                f"{neighbours + 1} {name}, got {len(rows)}."
            )
    real, samples = real.double(), samples.double()
    inside = share_inside(samples, real, radii(real, neighbours))
    return inside, share_inside(real, samples, radii(samples, neighbours))


def radii(rows: Tensor, neighbours: int) -> Tensor:
    """Distance of each row (N, D) to its k-th nearest other one, (N,)."""
    # The nearest is the row itself, at distance 0.
    parts = [part.kthvalue(neighbours + 1, dim=1).values for part in distances(rows, rows)]
    return torch.cat(parts)


def share_inside(rows: Tensor, centres: Tensor, reach: Tensor) -> float:
    """Part of the rows (M, D) that lie in any ball around `centres` (N, D) of `reach` (N,)."""
    inside = [(part <= reach).any(dim=1) for part in distances(rows, centres)]
    return float(torch.cat(inside).double().mean())


def distances(rows: Tensor, others: Tensor) -> Iterator[Tensor]:
    """Distances (at most `AT_ONCE`, N) of some rows to all others, part after part.

    By differences, not by |x|^2 + |y|^2 - 2 x y, which finds equal rows apart from themselves.
    """
    for part in rows.split(AT_ONCE):
        yield torch.cdist(part, others, compute_mode="donot_use_mm_for_euclid_dist")
