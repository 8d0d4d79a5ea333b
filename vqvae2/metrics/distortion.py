"""Distortion of reconstructions: MSE, PSNR, SSIM and MS-SSIM on the [0, 1] scale, level by level.

PSNR is that of the mean squared error over the whole set; SSIM is the mean over images of
torchmetrics' (Wang et al. 2004, an 11 x 11 Gaussian window), MS-SSIM the same over five scales
(Wang et al. 2003), which needs images of 176 pixels a side.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.metrics.results import Measurement
from vqvae2.metrics.usage import CodeUsage

SSIM_WINDOW = 11
MS_SSIM_SIDE = 176  # after four halvings the window must fit into the image


@dataclass(frozen=True)
class Distortion:
    """What an autoencoder loses on a set of images.

    Arguments:
        num_images: in the set.
        mse: mean squared error, images in [0, 1].
        ssim: structural similarity; nan when images are smaller than its window.
        ms_ssim: multi-scale structural similarity; nan below `MS_SSIM_SIDE`.
        variance: of the set's pixels, for errors relative to it.
        mse_alone: when the decoder is shown one level alone, coarsest first.
        mse_without: when one level is blanked.
        usage: of each level's codes, over the whole set.
    """

    num_images: int
    mse: float
    ssim: float
    ms_ssim: float
    variance: float
    mse_alone: list[float]
    mse_without: list[float]
    usage: list[CodeUsage]

    @property
    def psnr(self) -> float:
        """In decibels."""
        return decibels(self.mse)

    def measurement(self) -> Measurement:
        """The metrics by name."""
        values = {
            "mse": self.mse,
            "mse_over_variance": self.mse / self.variance if self.variance else None,
            "psnr_db": self.psnr,
            "ssim": number(self.ssim),
            "ms_ssim": number(self.ms_ssim),
        }
        per_level = {
            "mse_level_alone": tuple(self.mse_alone),
            "mse_level_blanked": tuple(self.mse_without),
            "codes_used": tuple(float(usage.used) for usage in self.usage),
            "share_used": tuple(usage.share_used for usage in self.usage),
            "perplexity": tuple(usage.perplexity for usage in self.usage),
        }
        return Measurement(self.num_images, values, per_level)


@torch.no_grad()
def measure_distortion(
    autoencoder: VQVAE, batches: Iterable[Tensor], world: World = SINGLE_PROCESS
) -> Distortion:
    """Distortion over batches of images (B, C, H, W) in [0, 1].

    Arguments:
        ranks: who brings other images of the set.
    """
    levels = range(autoencoder.config.num_levels)
    shown = [None, *([level] for level in levels)]
    if len(levels) > 1:
        shown += [[other for other in levels if other != level] for level in levels]
    usage = [CodeUsage.of(c.num_codes) for c in autoencoder.config.codebooks]
    errors = torch.zeros(len(shown), dtype=torch.float64)
    alike, count = torch.zeros(2, dtype=torch.float64), 0
    moments = torch.zeros(2, dtype=torch.float64)
    for images in batches:
        codes = autoencoder.encode(images)
        for counter, code in zip(usage, codes, strict=True):
            counter.add(code)
        for place, some in enumerate(shown):
            restored = autoencoder.decode(codes, some).clamp(0, 1)
            errors[place] += mean_error(images, restored) * len(images)
            if some is None:
                alike += similarities(restored, images) * len(images)
        values = images.cpu().double()
        moments += torch.stack([values.mean(), values.square().mean()]) * len(images)
        count += len(images)
    count = int(world.sum(torch.tensor(count)))
    if not count:
        raise ValueError("Expected at least one image to measure, got none.")
    usage = [CodeUsage(world.sum(counter.counts)) for counter in usage]
    alike, errors, moments = (world.sum(sums) / count for sums in (alike, errors, moments))
    return Distortion(
        num_images=count,
        mse=float(errors[0]),
        ssim=float(alike[0]),
        ms_ssim=float(alike[1]),
        variance=float(moments[1] - moments[0] ** 2),
        mse_alone=errors[1 : 1 + len(levels)].tolist(),
        mse_without=errors[1 + len(levels) :].tolist(),
        usage=usage,
    )


def mean_error(images: Tensor, other: Tensor) -> Tensor:
    """Mean squared error, a float64 scalar on the CPU."""
    return (images - other).cpu().double().square().mean()


def similarities(images: Tensor, other: Tensor) -> Tensor:
    """Mean SSIM and MS-SSIM of images (B, C, H, W) in [0, 1], (2,) float64 on the CPU.

    nan where the images are too small.
    """
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    side, found = min(images.shape[2:]), torch.full((2,), math.nan, dtype=torch.float64)
    if side >= SSIM_WINDOW:
        found[0] = torch.as_tensor(
            structural_similarity_index_measure(images, other, data_range=1.0)
        )
    if side >= MS_SSIM_SIDE:
        found[1] = multiscale_structural_similarity_index_measure(images, other, data_range=1.0)
    return found


@torch.no_grad()
def measure_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> Measurement:
    """MSE, PSNR, SSIM and MS-SSIM over pairs of batches (B, C, H, W) in [0, 1]."""
    error, alike, count = 0.0, torch.zeros(2, dtype=torch.float64), 0
    for images, others in pairs:
        if images.shape != others.shape:
            raise ValueError(
                f"Pairs must have one size, got {tuple(images.shape)} and {tuple(others.shape)}."
            )
        error += float(mean_error(images, others)) * len(images)
        alike += similarities(others, images) * len(images)
        count += len(images)
    if not count:
        raise ValueError("Expected at least one pair of images to measure, got none.")
    ssim, ms_ssim = (alike / count).tolist()
    values = {
        "mse": error / count,
        "psnr_db": decibels(error / count),
        "ssim": number(ssim),
        "ms_ssim": number(ms_ssim),
    }
    return Measurement(count, values)


def decibels(mse: float) -> float:
    """PSNR of a mean squared error, images in [0, 1]."""
    return -10 * math.log10(max(mse, 1e-12))


def number(value: float) -> float | None:
    """The value, None where there is no such number."""
    return None if math.isnan(value) else value
