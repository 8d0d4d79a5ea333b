"""Images of how a stage is doing, made at every look at validation examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqvae2.autoencoder.pixels import Pixels
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.imaging.grid import sheet
from vqvae2.priors import Prior
from vqvae2.priors.likelihood import SamplingConfig
from vqvae2.sampling.hierarchy import sample_level, uniforms

if TYPE_CHECKING:
    from PIL.Image import Image

PREVIEWED = 10
"""Validation images, or samples, in a preview."""


@torch.no_grad()
def preview_levels(autoencoder: VQVAE | Pixels, images: Tensor) -> "Image":
    """Images (B, C, H, W), their reconstructions, and what each level alone draws."""
    codes = autoencoder.encode(images)
    levels = range(len(codes))
    alone = [autoencoder.decode(codes, [level]) for level in levels]
    rows = [images, autoencoder.decode(codes), *alone]
    names = ["image", "all levels", *(f"level {level} alone" for level in levels)]
    return sheet(rows, names, scale=max(1, 64 // images.shape[2]))


@torch.no_grad()
def preview_draws(
    prior: Prior, level: int, autoencoder: VQVAE | Pixels, maps: Sequence[Tensor], labels: Tensor
) -> "Image":
    """New codes of one level under validation coarser codes, decoded without the finer levels.

    Arguments:
        prior: of `level`.
        maps: validation codes (B, H, W) of all levels.
        labels: (B,).
    """
    maps = [codes.to(prior.device) for codes in maps]
    context = prior.embed_context(labels.to(prior.device), maps[:level])
    noise = uniforms(range(len(labels)), prior.domain.num_values, level)
    *_, drawn = sample_level(prior, context, noise, SamplingConfig())
    shown = range(level + 1)
    rows = [
        autoencoder.decode(maps, shown),
        autoencoder.decode([*maps[:level], drawn, *maps[level + 1 :]], shown),
    ]
    names = ["validation codes", f"level {level} drawn"]
    return sheet(rows, names, scale=max(1, 64 // rows[0].shape[2]))


def preview_neighbours(
    samples: Tensor, near: Sequence[Tensor], names: Sequence[str] = ()
) -> "Image":
    """Samples (B, C, S, S) in [0, 1], each before its nearest images (n, C, S, S)."""
    rows = [
        torch.cat([sample[None], others]) for sample, others in zip(samples, near, strict=True)
    ]
    return sheet(rows, names, ["drawn", "nearest"], scale=max(1, 64 // samples.shape[2]))
