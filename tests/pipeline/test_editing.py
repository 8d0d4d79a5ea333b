import pytest
import torch
from builders import synthetic_images
from tiny_pipelines import KINDS, SIZE

from vqvae2.pipeline.editing import code_patches, erased, mixed, with_codes
from vqvae2.sampling import UNKNOWN


def test_levels_of_two_images_are_mixed():
    pipeline = KINDS["two levels"]()
    first, second = (pipeline.encode(image[None]) for image in synthetic_images(2))
    codes = mixed(first, second, [1])
    assert codes[0].equal(first[0])
    assert codes[1].equal(second[1])
    assert pipeline.decode(mixed(first, second, [0, 1])).equal(pipeline.decode(second))
    with pytest.raises(ValueError, match="codes of one shape"):
        mixed(first, second[:1], [0])


def test_replaced_codes_are_decoded_and_the_others_stay():
    pipeline = KINDS["two levels"]()
    codes = pipeline.encode(synthetic_images(1))
    changed = with_codes(pipeline, codes, 1, {(0, 3): 7, (2, 2): 9})
    assert changed[1][0, 0, 3] == 7
    assert changed[1][0, 2, 2] == 9
    assert (changed[1] != codes[1]).sum() <= 2
    assert changed[0].equal(codes[0])
    for level, cell, code in [(2, (0, 0), 0), (1, (99, 0), 0), (0, (0, 0), 24), (0, (-1, 0), 0)]:
        with pytest.raises(ValueError, match="Level"):
            with_codes(pipeline, codes, level, {cell: code})


@pytest.mark.parametrize("kind", ["one level", "two levels", "three levels", "one channel"])
def test_every_code_has_a_patch_of_the_size_of_its_cell(kind):
    pipeline = KINDS[kind]()
    for level, grid in enumerate(pipeline.autoencoder.config.grids(SIZE, SIZE)):
        patches = code_patches(pipeline, level)
        cell = SIZE // grid.height
        channels = pipeline.autoencoder.config.image_channels
        assert patches.shape == (grid.num_codes, channels, cell, cell)
        assert len(patches.unique(dim=0)) == grid.num_codes


def test_a_patch_is_what_a_map_of_its_code_decodes_to():
    pipeline = KINDS["two levels"]()
    codes = [torch.full((1, 2, 2), 5), torch.full((1, 4, 4), 0)]
    image = pipeline.decode(codes, [0])
    patch = code_patches(pipeline, 0)[5]
    assert patch.shape == (3, 8, 8)
    assert patch.mean(dim=(1, 2)).allclose(image[0].mean(dim=(1, 2)), atol=0.1)


def test_pixels_have_no_patches():
    with pytest.raises(ValueError, match="pixels in place of codes"):
        code_patches(KINDS["pixels"](), 0)


def test_a_mask_of_a_box_inpaints_like_the_box():
    pipeline = KINDS["two levels"]()
    images = synthetic_images(2)
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[8:] = True
    given = pipeline.preserved_codes(images, mask=mask)
    assert [(maps == UNKNOWN).sum().item() for maps in given] == [2 * 2, 2 * 8]
    assert all((maps[:, : maps.shape[1] // 2] != UNKNOWN).all() for maps in given)
    inpainted = pipeline.inpaint(images, [0, 1], mask=mask, keep_levels=1)
    assert inpainted.codes[0].equal(pipeline.encode(images)[0])
    assert inpainted.codes[1][:, :2].equal(pipeline.encode(images)[1][:, :2])
    with pytest.raises(ValueError, match="The mask is empty"):
        pipeline.inpaint(images, [0, 1], mask=torch.zeros(4, 4, dtype=torch.bool))


def test_surprise_is_the_negative_log_probability_of_each_position():
    for kind in ("two levels", "pixels"):
        pipeline = KINDS[kind]()
        images = synthetic_images(2, pipeline.config.image_size)
        nats, log_probs = pipeline.surprise(images, [0, 1]), pipeline.log_prob(images, [0, 1])
        assert all(maps.ndim == 3 and maps.dtype == torch.float64 for maps in nats)
        for maps, other in zip(nats, log_probs, strict=True):
            assert maps.sum().item() == pytest.approx(-other.sum().item(), rel=1e-5)


def test_codes_are_erased_under_a_mask_in_the_levels_that_are_not_kept():
    pipeline = KINDS["two levels"]()
    codes = pipeline.sample([0], [0]).codes
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[0, 0] = True
    both, fine = erased(codes, mask), erased(codes, mask, keep_levels=1)
    assert [(maps == UNKNOWN).sum().item() for maps in both] == [1, 1]
    assert fine[0].equal(codes[0])
    assert fine[1].equal(both[1])
    with pytest.raises(ValueError, match="nothing is left to sample"):
        erased(codes, mask, keep_levels=2)
