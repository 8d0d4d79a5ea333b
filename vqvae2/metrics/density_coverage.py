"""Density and coverage: precision and recall without outliers (Naeem et al., arXiv 2002.09797).

Both use balls around real features alone. Density counts in how many of them a sample lies, so one
outlier with a large ball does not accept all samples; coverage is the share of the balls that hold
a sample.

Legend: `N M` images, `D` features.
"""

import torch
from torch import Tensor

from vqvae2.metrics.precision_recall import distances, radii

NEIGHBOURS = 5


def density_coverage(
    real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS
) -> tuple[float, float]:
    """Density and coverage of samples (M, D) against real features (N, D).

    Samples of the distribution of the real images have a density of about 1.
    """
    real, samples = real.double(), samples.double()
    radius = radii(real, neighbours)
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for block in distances(samples, real):
        is_inside = block <= radius
        inside += int(is_inside.sum())
        covered |= is_inside.any(dim=0)
    density = inside / (neighbours * len(samples))
    return density, float(covered.double().mean())
