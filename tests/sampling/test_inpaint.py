import pytest
import torch

from vqvae2.sampling import UNKNOWN, erase, paint_over


def test_a_box_erases_every_position_that_it_overlaps():
    erased = erase(torch.zeros(1, 4, 4, dtype=torch.int64), (0.3, 0.5, 0.8, 1.0))[0]
    expected = [[0, 0, 0, 0], [0, 0, 0, 0], [0, -1, -1, -1], [0, -1, -1, -1]]
    assert erased.tolist() == expected
    pixels = erase(torch.zeros(1, 4, 4, 3, dtype=torch.int64), (0, 0, 1, 0.25))
    assert (pixels[0, 0] == UNKNOWN).all()
    assert not pixels[0, 1:].any()
    with pytest.raises(ValueError, match="A box is left, top, right, bottom"):
        erase(torch.zeros(1, 4, 4), (0.5, 0, 0.5, 1))


def test_a_box_is_painted_with_its_surroundings():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    lower = paint_over(images, (0, 0.5, 1, 1))[0, 0]
    assert torch.equal(lower, images[0, 0, [0, 1, 1, 1]])
    right = paint_over(images, (0.5, 0, 1, 1))[0, 0]
    assert torch.equal(right, images[0, 0][:, [0, 1, 1, 1]])
    assert torch.equal(paint_over(images, (0, 0, 1, 0.5))[0, 0], images[0, 0, [2, 2, 2, 3]])
    assert torch.equal(paint_over(images, (0, 0, 0.5, 1))[0, 0], images[0, 0][:, [2, 2, 2, 3]])
    assert (paint_over(images, (0, 0, 1, 1)) == 0.5).all()
