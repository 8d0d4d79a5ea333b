import pytest
import torch

from vqvae2.sampling import UNKNOWN, erase, paint_over
from vqvae2.sampling.inpaint import covered_by_mask, erase_masked, paint_over_mask


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


def test_a_mask_covers_every_position_that_it_overlaps():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2, 5] = True
    assert covered_by_mask(mask, 8, 8).equal(mask)
    assert covered_by_mask(mask, 4, 4).nonzero().tolist() == [[1, 2]]
    assert covered_by_mask(mask, 2, 2).nonzero().tolist() == [[0, 1]]
    # A mask of a coarser grid covers all finer positions inside of its cells.
    assert covered_by_mask(covered_by_mask(mask, 2, 2), 4, 4).nonzero().tolist() == [
        [0, 2], [0, 3], [1, 2], [1, 3],
    ]  # fmt: skip
    # Grids that do not divide one another: a third of 3 columns overlaps two of 4.
    assert covered_by_mask(torch.tensor([[False, True, False]]), 1, 4).tolist() == [
        [False, True, True, False]
    ]


def test_a_mask_erases_like_the_same_box():
    codes = torch.arange(16).view(1, 4, 4)
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[8:, 5:12] = True
    assert erase_masked(codes, mask).equal(erase(codes, (5 / 16, 0.5, 0.75, 1)))


def test_masks_that_mark_nothing_or_have_another_form_are_refused():
    with pytest.raises(ValueError, match="The mask is empty"):
        covered_by_mask(torch.zeros(4, 4, dtype=torch.bool), 2, 2)
    with pytest.raises(ValueError, match=r"bool with the shape \(H, W\), got torch.float32"):
        covered_by_mask(torch.ones(4, 4), 2, 2)


def test_a_masked_part_is_painted_with_its_surroundings_alone():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:6, 3:8] = True
    painted = paint_over_mask(images, mask)
    assert painted[..., ~mask].equal(images[..., ~mask])
    changed = torch.where(mask, torch.rand(2, 3, 8, 8), images)
    assert paint_over_mask(changed, mask).equal(painted)
    assert images[0].amin() <= painted[0].amin() <= painted[0].amax() <= images[0].amax()
    constant = torch.full((1, 1, 8, 8), 0.25)
    assert paint_over_mask(constant, mask).allclose(constant)
    assert (paint_over_mask(images, torch.ones(8, 8, dtype=torch.bool)) == 0.5).all()
