"""PNG files hold the pixels and the settings they were made with."""

import torch
from noise_images import noise_tensor

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import png, read_png, read_settings, save_png


def test_pixels_and_settings_survive_a_file(tmp_path):
    pixels, settings = noise_tensor([0])[0], {"seed": 7, "class": "größer", "top_p": [0.5, 1.0]}
    path = tmp_path / "folder" / "a.png"
    save_png(path, to_pil(pixels), settings)
    assert torch.equal(read_png(path), pixels.float() / 255)
    assert read_settings(path) == settings


def test_a_file_without_settings_has_none(tmp_path):
    save_png(tmp_path / "a.png", to_pil(noise_tensor([0])[0]))
    assert read_settings(tmp_path / "a.png") == {}


def test_equal_images_and_settings_make_equal_files():
    image = to_pil(noise_tensor([0])[0])
    assert png(image, {"seed": 1}) == png(image, {"seed": 1}) != png(image, {"seed": 2})
