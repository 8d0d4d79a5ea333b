"""Image grids: rows, enlargement, names and titles."""

import pytest
import torch
from noise_images import noise_tensor

from vqvae2.imaging.convert import from_pil
from vqvae2.imaging.grid import MARGIN, image_grid


def test_images_stand_in_rows_on_white():
    first, second = noise_tensor([0, 1]), noise_tensor([2])
    pixels = from_pil(image_grid([first, second], scale=1))
    step = 16 + MARGIN
    assert pixels.shape == (3, 2 * step, 2 * step)
    assert torch.equal(pixels[:, :16, step : step + 16], first[1])
    assert torch.equal(pixels[:, step : step + 16, :16], second[0])
    assert (pixels[:, step:, step:] == 255).all()


def test_smaller_images_are_enlarged_to_the_largest_without_smoothing():
    small, large = noise_tensor([0], side=4), noise_tensor([1], side=16)
    pixels = from_pil(image_grid([small, large], scale=2))
    enlarged = small[0].repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert torch.equal(pixels[:, :32, :32], enlarged)


@pytest.mark.parametrize(("side", "factor"), [(8, 16), (32, 4), (64, 2), (100, 1), (256, 1)])
def test_small_images_are_enlarged_by_an_integer_factor_so_that_they_can_be_judged(side, factor):
    image = noise_tensor([0], side=side)
    pixels = from_pil(image_grid([image]))
    enlarged = image[0].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    assert torch.equal(pixels[:, : side * factor, : side * factor], enlarged)


def test_names_and_titles_get_space_of_their_own():
    images = noise_tensor([0], side=32)
    plain = image_grid([images], scale=1)
    labelled = image_grid([images], names=["original"], titles=["a title"], scale=1)
    left, top = labelled.width - plain.width, labelled.height - plain.height
    assert left > 20
    assert top > 10
    pixels = from_pil(labelled)
    assert torch.equal(pixels[:, top : top + 32, left : left + 32], images[0])
    assert (pixels[:, top:, :left] < 100).any(), "the name is printed"
