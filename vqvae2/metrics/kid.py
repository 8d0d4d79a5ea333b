"""Kernel inception distance: an unbiased distance of two sets (Bińkowski et al. 2018).

torchmetrics' polynomial kernel over random subsets, their mean and spread. Unlike FID it does not
depend on how many images there are, so it is the one to use where there are few. The subsets are
drawn from the rows in sorted order with a seed of our own: the figure does not depend on the order
of the images.

Legend: `N M` images, `D` features.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from vqvae2.metrics.fid import Passthrough
from vqvae2.randomness import generator

SUBSETS, SUBSET_SIZE = 100, 1000


def kernel_distance(real: Tensor, other: Tensor, seed: int = 0) -> tuple[float, float]:
    """KID of features (N, D) and (M, D), and its standard deviation over subsets."""
    size = min(SUBSET_SIZE, len(real), len(other))
    if size < 2:
        raise ValueError(f"KID needs at least 2 images a set, got {len(real)} and {len(other)}.")
    from torchmetrics.image.kid import KernelInceptionDistance

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(
            feature=Passthrough(real.shape[1]),
            subsets=SUBSETS,
            subset_size=size,
            sync_on_compute=False,  # ranks share what is seen; one compares
        )
        metric.update(in_order(real.double()), real=True)
        metric.update(in_order(other.double()), real=False)
        torch.manual_seed(generator("kid", seed).initial_seed())
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


def in_order(rows: Tensor) -> Tensor:
    """Rows (N, D) sorted by their first numbers, then the next, and so on."""
    values = rows.numpy()
    return rows[torch.from_numpy(np.lexsort(values.T[::-1]))]
