"""Previews of a stage: reconstructions per level, and samples of one level."""

import torch
from builders import small_autoencoder, synthetic_images

from vqvae2.imaging.convert import from_pil, to_uint8
from vqvae2.imaging.grid import MARGIN
from vqvae2.imaging.previews import preview_levels, preview_samples
from vqvae2.priors import GatedPixelCNNConfig, Prior
from vqvae2.priors.domain import Domain

STEP = 128 + MARGIN
"""Images of 16 pixels are enlarged to 128."""


def enlarged(image: torch.Tensor) -> torch.Tensor:
    return to_uint8(image).repeat_interleave(8, 1).repeat_interleave(8, 2)


def test_a_preview_of_levels_shows_images_reconstructions_and_each_level_alone():
    model, images = small_autoencoder((2, 4), dtype=torch.float32), synthetic_images(3)
    pixels = from_pil(preview_levels(model, images))
    left = pixels.shape[2] - 3 * STEP
    assert pixels.shape[1] == 4 * STEP
    codes = model.encode(images)
    rows = [images, model.decode(codes), model.decode(codes, [0]), model.decode(codes, [1])]
    for number, row in enumerate(rows):
        actual = pixels[:, number * STEP :, left:][:, :128, :128]
        assert torch.equal(actual, enlarged(row[0].detach()))


def test_a_preview_of_samples_decodes_no_finer_level():
    model = small_autoencoder((2, 4), dtype=torch.float32)
    maps = model.encode(synthetic_images(2))
    grid = model.config.grids(16, 16)[0]
    config = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    prior = Prior(config, Domain(grid=grid)).eval()
    first = from_pil(preview_samples(prior, 0, model, maps, torch.zeros(2).long()))
    other = [maps[0], torch.zeros_like(maps[1])]
    second = from_pil(preview_samples(prior, 0, model, other, torch.zeros(2).long()))
    assert first.shape[1] == 2 * STEP
    assert torch.equal(first, second)
