"""Nearest training images of samples, which show memorisation.

Legend: `N` training images, `M` samples, `D` features, `n` neighbours.
"""

from torch import Tensor

from vqvae2.metrics.precision_recall import distances
from vqvae2.metrics.rows import Rows


def nearest(rows: Tensor, others: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest rows of `others` (N, D) to each of `rows` (M, D), nearest first.

    Returns:
        Indices into `others`, (M, n).
        Distances, (M, n) float64.
    """
    if len(others) < count:
        raise ValueError(f"Expected at least {count} images to search, got {len(others)}.")
    indices, values = Rows(), Rows()
    for part in distances(rows.double(), others.double()):
        found = part.topk(count, dim=1, largest=False)
        indices.append(found.indices)
        values.append(found.values)
    return indices.tensor(), values.tensor()
