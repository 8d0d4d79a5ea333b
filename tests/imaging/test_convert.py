"""Images as float tensors, uint8 tensors and Pillow images."""

import numpy as np
import pytest
import torch
from noise_images import noise, noise_tensor
from PIL import Image

from vqvae2.imaging.convert import from_pil, to_float, to_pil, to_uint8


def test_uint8_images_survive_the_way_to_floats_and_back():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    floats = to_float(images)
    assert (floats.dtype, float(floats.min()), float(floats.max())) == (torch.float32, 0, 1)
    assert torch.equal(to_uint8(floats), images)


def test_floats_are_rounded_and_clamped():
    values = torch.tensor([-0.5, 0.49 / 255, 0.51 / 255, 1.5], requires_grad=True)
    assert to_uint8(values).tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tensor_becomes_a_pillow_image_and_back(channels):
    pixels = noise_tensor([0])[0][:channels]
    image = to_pil(pixels)
    assert (image.mode, image.size) == ("RGB", (16, 16))
    assert torch.equal(from_pil(image), pixels.expand(3, -1, -1))
    assert torch.equal(from_pil(to_pil(pixels.float() / 255)), from_pil(image))


def test_a_pillow_image_of_any_mode_becomes_rgb():
    grey = noise(8, channels=1)
    expected = torch.from_numpy(np.stack([grey] * 3))
    assert torch.equal(from_pil(Image.fromarray(grey)), expected)
