"""Distortion of reconstructions: MSE, PSNR, SSIM and MS-SSIM on the [0, 1] scale, and by level.

PSNR is that of the mean squared error over all images; SSIM is the mean over images of
torchmetrics' (Wang et al. 2004, an 11 x 11 Gaussian window), MS-SSIM the same over five scales
(Wang et al. 2003), which needs images of 176 pixels a side.

Legend: `B` images, `C` channels, `H W` sides.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.metrics.results import Measurement
from vqvae2.metrics.usage import CodeUsage
from vqvae2.precision import exact
from vqvae2.transfers import to_device

SSIM_WINDOW = 11
MS_SSIM_SIDE = 176  # after four halvings the window must fit into the image


@torch.no_grad()
def measure_distortion(
    autoencoder: VQVAE, batches: Iterable[Tensor], world: World = SINGLE_PROCESS
) -> Measurement:
    """Errors of reconstructions, of all levels and of subsets of them, and codebook usage.

    Arguments:
        autoencoder: encodes and decodes the images.
        batches: images (B, C, H, W) in [0, 1].
        world: processes, each of which has other images of the set.
    """
    subsets = level_subsets(autoencoder.config.num_levels)
    usage = [CodeUsage.of(codebook.num_codes) for codebook in autoencoder.config.codebooks]
    totals = torch.zeros(6 + len(subsets), dtype=torch.float64)
    for images in batches:
        codes = autoencoder.encode(images)
        for counter, code in zip(usage, codes, strict=True):
            counter.add(code)
        pixels = exact(images)
        means = torch.stack([pixels.new_ones(()), pixels.mean(), pixels.square().mean()])
        errors = pair_errors(images, autoencoder.decode(codes).clamp(0, 1))
        subset_errors = [
            mean_error(images, autoencoder.decode(codes, levels).clamp(0, 1)) for levels in subsets
        ]
        sums = torch.cat([means, errors, torch.stack(subset_errors)]) * len(images)
        totals = sums + to_device(totals.to(sums.dtype), sums.device)
    totals = world.sum(totals)
    count = int(totals[0])
    if not count:
        raise ValueError("Expected at least one image to measure, got none.")
    usage = [CodeUsage(world.sum(counter.counts)) for counter in usage]
    mean, mean_square, mse = (totals[1:4] / count).tolist()
    subset_mse = (totals[6:] / count).tolist()
    variance = mean_square - mean**2
    values = {
        "mse": mse,
        "mse_over_variance": mse / variance if variance else None,
        **named_errors(totals[3:6] / count),
    }
    per_level = {
        "mse_level_alone": tuple(subset_mse[: len(usage)]),
        "mse_level_blanked": tuple(subset_mse[len(usage) :]),
        "codes_used": tuple(float(counter.used) for counter in usage),
        "share_used": tuple(counter.share_used for counter in usage),
        "perplexity": tuple(counter.perplexity for counter in usage),
    }
    return Measurement(count, values, per_level)


def level_subsets(num_levels: int) -> list[list[int]]:
    """The levels to decode: each one alone, then all but each one."""
    levels = range(num_levels)
    without = [[other for other in levels if other != level] for level in levels]
    return [[level] for level in levels] + (without if num_levels > 1 else [])


@torch.no_grad()
def measure_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> Measurement:
    """MSE, PSNR, SSIM and MS-SSIM over pairs of batches (B, C, H, W) in [0, 1]."""
    errors, count = torch.zeros(3, dtype=torch.float64), 0
    for images, others in pairs:
        if images.shape != others.shape:
            raise ValueError(
                f"Pairs must have one size, got {tuple(images.shape)} and {tuple(others.shape)}."
            )
        sums = pair_errors(images, others) * len(images)
        errors = sums + to_device(errors.to(sums.dtype), sums.device)
        count += len(images)
    if not count:
        raise ValueError("Expected at least one pair of images to measure, got none.")
    return Measurement(count, named_errors(errors / count))


def mean_error(images: Tensor, others: Tensor) -> Tensor:
    """Mean squared error, a scalar that is not read from its device."""
    return exact(images - others).square().mean()


def pair_errors(images: Tensor, others: Tensor) -> Tensor:
    """MSE, SSIM and MS-SSIM of images (B, C, H, W) in [0, 1], (3,), not read from their device.

    NaN where the images are smaller than the metric needs.
    """
    from torchmetrics.functional import image as metrics

    error = mean_error(images, others)
    ssim = ms_ssim = torch.full_like(error, math.nan)
    if min(images.shape[2:]) >= SSIM_WINDOW:
        ssim = metrics.structural_similarity_index_measure(others, images, data_range=1.0)
    if min(images.shape[2:]) >= MS_SSIM_SIDE:
        ms_ssim = metrics.multiscale_structural_similarity_index_measure(
            others, images, data_range=1.0
        )
    return torch.stack([error, ssim.to(error), ms_ssim.to(error)])


def named_errors(errors: Tensor) -> dict[str, float | None]:
    """MSE, PSNR, SSIM and MS-SSIM of mean `pair_errors` (3,), with None for NaN."""
    mse, *similarities = errors.tolist()
    ssim, ms_ssim = (None if math.isnan(value) else value for value in similarities)
    psnr = -10 * math.log10(max(mse, 1e-12))
    return {"mse": mse, "psnr_db": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
