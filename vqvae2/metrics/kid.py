"""Kernel inception distance: an unbiased distance of two sets (Bińkowski et al. 2018).

torchmetrics' polynomial kernel over random subsets, their mean and standard deviation. Unlike FID
it does not depend on the number of images, so it is the metric for small sets. The subsets come
from the rows in sorted order and a fixed seed, so the result does not depend on the order
of the images.

The kernel (x y / D + 1)^3 assumes features of about the scale of Inception's pooled activations,
whose root mean square is below 1. Features of other networks may be any number of times larger;
the cubic term then amplifies a few images with large features without bound. So both sets are
divided by the root mean square of the real features where it exceeds 1, which leaves the published
protocol as it is.

Legend: `N M` images, `D` features.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from vqvae2.randomness import seeded

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel_distance(real: Tensor, other: Tensor, seed: int = 0) -> tuple[float, float]:
    """KID of features (N, D) and (M, D), and its standard deviation over subsets."""
    size = min(SUBSET_SIZE, len(real), len(other))
    if size < 2:
        raise ValueError(f"KID needs at least 2 images per set, got {len(real)} and {len(other)}.")
    from torchmetrics.image.kid import KernelInceptionDistance

    scale = feature_scale(real)
    with warnings.catch_warnings(), seeded("kid", seed):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(
            torch.nn.Identity(), subsets=SUBSETS, subset_size=size, sync_on_compute=False
        )
        metric.update(sort_rows(real.double() / scale), real=True)
        metric.update(sort_rows(other.double() / scale), real=False)
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def feature_scale(real: Tensor) -> float:
    """The root mean square of features (N, D) where it exceeds 1, else 1."""
    return max(1.0, float(real.double().square().mean().sqrt()))


def sort_rows(rows: Tensor) -> Tensor:
    """Rows (N, D) in lexicographic order."""
    values = rows.numpy()
    return rows[torch.from_numpy(np.lexsort(values.T[::-1]))]
