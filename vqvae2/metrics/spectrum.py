"""Radial power spectra of images: they show blur, which features of classifiers hardly see.

The power of an image's brightness at each spatial frequency, averaged over directions. Soft images
lack power at high frequencies (as in arXiv 2003.01826).

Legend: `B` images, `C` channels, `H W` sides, `R` integer radii of the frequency plane.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from vqvae2.transfers import to_device

LEAST_POWER = 1e-12


def radial_spectra(images: Tensor) -> Tensor:
    """Mean power per integer frequency from 1 to half of the smaller side, (B, R) float32.

    Arguments:
        images: (B, C, H, W) in [0, 1].
    """
    radius, sizes = (to_device(part, images.device) for part in frequencies(*images.shape[2:]))
    brightness = images.float().mean(dim=1)
    power = torch.fft.fft2(brightness, norm="ortho").abs().square().flatten(1)
    sums = power.new_zeros(len(images), len(sizes)).index_add_(1, radius, power)
    return (sums / sizes)[:, 1 : min(images.shape[2:]) // 2 + 1]


@lru_cache(maxsize=16)
def frequencies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """The integer frequency of each coefficient (H W,), and how many have each, on the CPU."""
    rows, columns = (torch.fft.fftfreq(side) * min(height, width) for side in (height, width))
    radius = torch.hypot(rows[:, None], columns[None, :]).round().long().flatten()
    return radius, radius.bincount().clamp_min(1).float()


def spectral_distance(one: Tensor, other: Tensor) -> float:
    """Root mean square difference of two mean spectra (R,), in dB."""
    levels = [10 * spectrum.double().clamp_min(LEAST_POWER).log10() for spectrum in (one, other)]
    return math.sqrt(float((levels[0] - levels[1]).square().mean()))
