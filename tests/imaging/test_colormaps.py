"""Code maps and scalar maps as colour images."""

import torch

from vqvae2.imaging.colormaps import code_map, heat


def test_equal_codes_have_equal_colours_and_other_codes_others():
    codes = torch.arange(256).reshape(1, 16, 16)
    image = code_map(codes, 256)
    assert image.shape == (1, 3, 16, 16)
    assert 0 <= float(image.min()) <= float(image.max()) <= 1
    colours = image[0].flatten(1).T
    assert len((colours * 255).round().unique(dim=0)) > 250
    assert torch.equal(code_map(codes.flip(1), 256), image.flip(2))


def test_heat_goes_from_black_over_red_and_yellow_to_white():
    image = heat(torch.tensor([[[0.0, 1 / 3, 2 / 3, 1.0]]]))
    expected = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).T
    torch.testing.assert_close(image[0, :, 0], expected.float())
