"""Previews: images that show the progress of training, made at every validation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqvae2.autoencoder import VQVAE, Autoencoder
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.imaging.grid import image_grid
from vqvae2.priors import Prior
from vqvae2.sampling import SamplingConfig, sample_level, uniforms

if TYPE_CHECKING:
    from PIL.Image import Image

NUM_PREVIEW_IMAGES = 10
"""Number of validation images, or of samples, in a preview."""


@torch.no_grad()
def preview_levels(autoencoder: Autoencoder, images: Tensor) -> "Image":
    """Images (B, C, H, W), their reconstructions, and the decoding of each level alone."""
    codes = autoencoder.encode(images)
    levels = range(len(codes))
    single = [autoencoder.decode(codes, [level]) for level in levels]
    rows = [images, autoencoder.decode(codes), *single]
    names = ["image", "all levels", *(f"level {level} alone" for level in levels)]
    return image_grid(rows, names)


@torch.no_grad()
def preview_decoders(autoencoder: VQVAE, decoder: SharpDecoder, images: Tensor) -> "Image":
    """Images (B, C, H, W), and the decodings of their codes by the plain and the sharp decoder."""
    codes = autoencoder.encode(images)
    rows = [images, autoencoder.decode(codes), decoder.decode(autoencoder, codes)]
    return image_grid(rows, ["image", "plain", "sharp"])


@torch.no_grad()
def preview_samples(
    prior: Prior, level: int, autoencoder: Autoencoder, maps: Sequence[Tensor], labels: Tensor
) -> "Image":
    """Samples of one level, conditioned on validation codes of the coarser levels.

    The images are decoded without the finer levels, below those of the validation codes.

    Arguments:
        prior: The prior of `level`.
        level: The level to sample.
        autoencoder: Decodes the codes.
        maps: Validation codes (B, H, W) of all levels.
        labels: (B,) int64.
    """
    maps = [codes.to(prior.device) for codes in maps]
    context = prior.embed_context(labels.to(prior.device), maps[:level])
    noise = uniforms(range(len(labels)), prior.domain.num_values, level)
    *_, samples = sample_level(prior, context, noise, SamplingConfig())
    visible_levels = range(level + 1)
    rows = [
        autoencoder.decode(maps, visible_levels),
        autoencoder.decode([*maps[:level], samples, *maps[level + 1 :]], visible_levels),
    ]
    names = ["validation codes", f"sampled level {level}"]
    return image_grid(rows, names)
