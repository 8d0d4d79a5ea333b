"""Distortion of reconstructions: MSE, PSNR and SSIM, on the [0, 1] scale, and what levels carry.

PSNR is that of the mean squared error over the whole set; SSIM is the mean over pictures of
torchmetrics' (Wang et al. 2004, an 11 x 11 Gaussian window).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.autoencoder import VQVAE
from vqvae2.metrics.usage import CodeUsage


@dataclass(frozen=True)
class Distortion:
    """What an autoencoder loses on a set of pictures.

    Arguments:
        num_pictures: in the set.
        mse: mean squared error, pictures in [0, 1].
        ssim: structural similarity; nan when pictures are smaller than its window.
        variance: of the set's pixels, for errors relative to it.
        mse_alone: when the decoder is shown one level alone, coarsest first.
        mse_without: when one level is blanked.
        usage: of each level's codes, over the whole set.
    """

    num_pictures: int
    mse: float
    ssim: float
    variance: float
    mse_alone: list[float]
    mse_without: list[float]
    usage: list[CodeUsage]

    @property
    def psnr(self) -> float:
        """In decibels."""
        return -10 * math.log10(max(self.mse, 1e-12))


@torch.no_grad()
def measure_distortion(autoencoder: VQVAE, batches: Iterable[Tensor]) -> Distortion:
    """Distortion over batches of pictures (B, C, H, W) in [0, 1]."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    levels = range(autoencoder.config.num_levels)
    shown = [None, *([level] for level in levels)]
    if len(levels) > 1:
        shown += [[other for other in levels if other != level] for level in levels]
    usage = [CodeUsage.of(autoencoder.config.codebook.num_codes) for _ in levels]
    errors = torch.zeros(len(shown), dtype=torch.float64)
    ssim, count, moments = 0.0, 0, torch.zeros(2, dtype=torch.float64)
    for images in batches:
        codes = autoencoder.encode(images)
        for counter, code in zip(usage, codes, strict=True):
            counter.add(code)
        pictures = [autoencoder.decode(codes, some).clamp(0, 1) for some in shown]
        errors += torch.stack([mean_error(images, picture) for picture in pictures]) * len(images)
        if min(images.shape[2:]) >= 11:
            similar = structural_similarity_index_measure(pictures[0], images, data_range=1.0)
            ssim += float(torch.as_tensor(similar)) * len(images)
        else:
            ssim = math.nan
        moments += torch.stack([images.double().mean(), images.double().square().mean()]).cpu() * (
            len(images)
        )
        count += len(images)
    if not count:
        raise ValueError("Expected at least one picture to measure, got none.")
    errors, moments = errors / count, moments / count
    return Distortion(
        num_pictures=count,
        mse=float(errors[0]),
        ssim=ssim / count,
        variance=float(moments[1] - moments[0] ** 2),
        mse_alone=errors[1 : 1 + len(levels)].tolist(),
        mse_without=errors[1 + len(levels) :].tolist(),
        usage=usage,
    )


def mean_error(images: Tensor, other: Tensor) -> Tensor:
    """Mean squared error, a float64 scalar on the CPU."""
    return (images - other).double().square().mean().cpu()


def figures(distortion: Distortion, names: Sequence[str] = ()) -> dict[str, float | list[float]]:
    """A `Distortion` as plain numbers for metrics.json."""
    return {
        "num_pictures": distortion.num_pictures,
        "mse": distortion.mse,
        "mse_over_variance": distortion.mse / distortion.variance,
        "psnr_db": distortion.psnr,
        "ssim": distortion.ssim,
        "mse_level_alone": distortion.mse_alone,
        "mse_level_blanked": distortion.mse_without,
        "codes_used": [float(usage.used) for usage in distortion.usage],
        "share_used": [usage.share_used for usage in distortion.usage],
        "perplexity": [usage.perplexity for usage in distortion.usage],
    }
