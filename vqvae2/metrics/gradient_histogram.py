"""Histograms of gradient magnitudes: sharp images have few large and many small gradients.

Legend: `B` images, `C` channels, `H W` sides, `M` bins.
"""

import torch
from torch import Tensor

NUM_BINS = 64
LARGEST = 1.0
"""Magnitudes from here on are in the last bin."""


def gradient_histograms(images: Tensor) -> Tensor:
    """Shares of the positions by the magnitude of the gradient of brightness, (B, M) float32.

    Arguments:
        images: (B, C, H, W) in [0, 1]; differences are between neighbouring pixels.
    """
    brightness = images.float().mean(dim=1)
    across = brightness[:, :-1, 1:] - brightness[:, :-1, :-1]
    down = brightness[:, 1:, :-1] - brightness[:, :-1, :-1]
    bins = (torch.hypot(across, down) * (NUM_BINS / LARGEST)).long().clamp_max(NUM_BINS - 1)
    shares = brightness.new_zeros(len(images), NUM_BINS)
    ones = torch.ones_like(across).flatten(1) / across[0].numel()
    return shares.scatter_add_(1, bins.flatten(1), ones)


def gradient_distance(one: Tensor, other: Tensor) -> float:
    """Wasserstein-1 distance of two mean histograms (M,): by how much magnitudes differ."""
    difference = one.double().cumsum(0) - other.double().cumsum(0)
    return float(difference.abs().sum()) * LARGEST / NUM_BINS
