import math

import pytest
import torch
from builders import FACTORS, small_autoencoder, synthetic_images

from vqvae2.metrics.distortion import measure_distortion, measure_pairs


@pytest.mark.parametrize("factors", FACTORS)
def test_distortion_matches_numpy_and_does_not_depend_on_the_batches(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(7).double()
    measured = measure_distortion(model, [images])
    decoded = model.decode(model.encode(images)).clamp(0, 1).detach().numpy()
    mse = ((decoded - images.numpy()) ** 2).mean()
    assert measured["mse"] == pytest.approx(mse, rel=1e-10)
    assert measured["psnr_db"] == pytest.approx(-10 * math.log10(mse))
    assert measured["mse_over_variance"] == pytest.approx(mse / images.numpy().var())
    in_batches = measure_distortion(model, images.split(3))
    assert in_batches.flat() == pytest.approx(measured.flat(), rel=1e-9)


def test_blanking_one_level_of_two_leaves_the_other_alone():
    measured = measure_distortion(small_autoencoder((2, 4)), [synthetic_images(4).double()])
    blanked = measured.levels("mse_level_blanked")
    assert measured.levels("mse_level_alone") == pytest.approx(blanked[::-1])


def test_ssim_of_an_image_with_itself_is_1_and_small_images_have_none():
    class Perfect(torch.nn.Module):
        config = small_autoencoder((2,)).config

        def encode(self, images):
            self.images = images
            return [torch.zeros(len(images), 2, 2, dtype=torch.int64)]

        def decode(self, codes, levels=None):
            return self.images

    measured = measure_distortion(Perfect(), [synthetic_images(2)])
    assert (measured["mse"], measured["ssim"]) == (0, pytest.approx(1))
    assert measure_distortion(Perfect(), [synthetic_images(2, size=8)]).get("ssim") is None


def test_ms_ssim_needs_large_images_and_is_1_for_equal_ones():
    images = torch.rand(1, 3, 176, 176)
    same = measure_pairs([(images, images)])
    assert (same["ssim"], same["ms_ssim"]) == (pytest.approx(1), pytest.approx(1))
    noisy = measure_pairs([(images, (images + 0.2 * torch.rand_like(images)).clamp(0, 1))])
    assert 0 < noisy["ms_ssim"] < 1
    assert measure_pairs([(images[..., :32, :32],) * 2]).get("ms_ssim") is None


def test_measuring_nothing_or_pairs_of_two_sizes_is_one_clear_line():
    images = synthetic_images(2)
    with pytest.raises(ValueError, match="at least one image"):
        measure_distortion(small_autoencoder((2,)), [])
    with pytest.raises(ValueError, match="Pairs must have one size"):
        measure_pairs([(images, images[..., :-1])])
    with pytest.raises(ValueError, match="at least one pair"):
        measure_pairs([])
