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
    errors = torch.zeros(len(subsets), dtype=torch.float64)
    similarity, moments = torch.zeros(2, 2, dtype=torch.float64)
    count = 0
    for images in batches:
        codes = autoencoder.encode(images)
        for counter, code in zip(usage, codes, strict=True):
            counter.add(code)
        for number, levels in enumerate(subsets):
            decoded = autoencoder.decode(codes, levels).clamp(0, 1)
            errors[number] += mean_error(images, decoded) * len(images)
            if levels is None:
                similarity += similarities(decoded, images) * len(images)
        pixels = images.cpu().double()
        moments += torch.stack([pixels.mean(), pixels.square().mean()]) * len(images)
        count += len(images)
    count = int(world.sum(torch.tensor(count)))
    if not count:
        raise ValueError("Expected at least one image to measure, got none.")
    usage = [CodeUsage(world.sum(counter.counts)) for counter in usage]
    mse, *subset_mse = (world.sum(errors) / count).tolist()
    mean, mean_square = (world.sum(moments) / count).tolist()
    variance = mean_square - mean**2
    values = {
        "mse": mse,
        "mse_over_variance": mse / variance if variance else None,
        **quality(mse, world.sum(similarity) / count),
    }
    per_level = {
        "mse_level_alone": tuple(subset_mse[: len(usage)]),
        "mse_level_blanked": tuple(subset_mse[len(usage) :]),
        "codes_used": tuple(float(counter.used) for counter in usage),
        "share_used": tuple(counter.share_used for counter in usage),
        "perplexity": tuple(counter.perplexity for counter in usage),
    }
    return Measurement(count, values, per_level)


def level_subsets(num_levels: int) -> list[list[int] | None]:
    """The levels to decode: all (None), each one alone, then all but each one."""
    levels = range(num_levels)
    subsets: list[list[int] | None] = [None, *([level] for level in levels)]
    if num_levels > 1:
        subsets += [[other for other in levels if other != level] for level in levels]
    return subsets


@torch.no_grad()
def measure_pairs(pairs: Iterable[tuple[Tensor, Tensor]]) -> Measurement:
    """MSE, PSNR, SSIM and MS-SSIM over pairs of batches (B, C, H, W) in [0, 1]."""
    error, count = 0.0, 0
    similarity = torch.zeros(2, dtype=torch.float64)
    for images, others in pairs:
        if images.shape != others.shape:
            raise ValueError(
                f"Pairs must have one size, got {tuple(images.shape)} and {tuple(others.shape)}."
            )
        error += float(mean_error(images, others)) * len(images)
        similarity += similarities(others, images) * len(images)
        count += len(images)
    if not count:
        raise ValueError("Expected at least one pair of images to measure, got none.")
    mse = error / count
    return Measurement(count, {"mse": mse, **quality(mse, similarity / count)})


def mean_error(images: Tensor, others: Tensor) -> Tensor:
    """Mean squared error, a float64 scalar on the CPU."""
    return (images - others).cpu().double().square().mean()


def similarities(images: Tensor, others: Tensor) -> Tensor:
    """Mean SSIM and MS-SSIM of images (B, C, H, W) in [0, 1], (2,) float64 on the CPU.

    NaN where the images are smaller than the metric needs.
    """
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure,
        structural_similarity_index_measure,
    )

    side, result = min(images.shape[2:]), torch.full((2,), math.nan, dtype=torch.float64)
    if side >= SSIM_WINDOW:
        result[0] = torch.as_tensor(
            structural_similarity_index_measure(images, others, data_range=1.0)
        )
    if side >= MS_SSIM_SIDE:
        result[1] = multiscale_structural_similarity_index_measure(images, others, data_range=1.0)
    return result


def quality(mse: float, similarity: Tensor) -> dict[str, float | None]:
    """PSNR of a mean squared error, and SSIM and MS-SSIM (2,) with None for NaN."""
    ssim, ms_ssim = (None if math.isnan(value) else value for value in similarity.tolist())
    psnr = -10 * math.log10(max(mse, 1e-12))
    return {"psnr_db": psnr, "ssim": ssim, "ms_ssim": ms_ssim}
