import pytest
import torch
from builders import small_autoencoder, small_config, synthetic_images

from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig


def test_levels_are_a_list_coarsest_first(factors):
    model = small_autoencoder(factors)
    codes = model.encode(synthetic_images(2).double())
    assert len(codes) == len(factors) == model.config.num_levels
    sizes = [code.shape[1:].numel() for code in codes]
    assert sizes == sorted(sizes)
    assert [tuple(code.shape[1:]) for code in codes] == model.config.grids(16, 16)
    assert all(code.dtype == torch.int64 for code in codes)


def test_paper_models_have_the_paper_grids():
    assert VQVAEConfig().grids(256, 256) == [(32, 32), (64, 64)]
    assert VQVAEConfig(factors=(2, 2, 8)).grids(1024, 1024) == [(32, 32), (64, 64), (128, 128)]


def test_decode_of_encode_equals_forward(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(3).double()
    result = model(images)
    torch.testing.assert_close(model.decode(model.encode(images)), result.images)
    for code, again in zip(result.codes, model.encode(images), strict=True):
        assert torch.equal(code, again)


def test_images_need_not_be_square(factors):
    model = small_autoencoder(factors)
    images = torch.rand(1, 3, 16, 32).double()
    assert model.decode(model.encode(images)).shape == images.shape


def test_finer_codes_depend_on_the_coarser_ones():
    model = small_autoencoder((2, 2, 2))
    images = synthetic_images(4).double()
    plain = model.encode(images)
    # Another coarsest codebook changes what the finer levels choose, for the same image.
    model.codebooks[0].vectors.copy_(torch.randn_like(model.codebooks[0].vectors) * 3)
    changed = model.encode(images)
    assert not torch.equal(plain[1], changed[1])
    assert not torch.equal(plain[2], changed[2])


def test_decoder_sees_every_level(factors):
    model = small_autoencoder(factors)
    codes = model.encode(synthetic_images(2).double())
    whole = model.decode(codes)
    for level in range(len(codes)):
        others = [other for other in range(len(codes)) if other != level]
        assert not torch.allclose(model.decode(codes, others), whole)


def test_each_level_can_be_decoded_alone(factors):
    model = small_autoencoder(factors)
    codes = model.encode(synthetic_images(2).double())
    for level in range(len(codes)):
        alone = model.decode(codes, [level])
        other = [code if i == level else (code + 1) % 24 for i, code in enumerate(codes)]
        torch.testing.assert_close(model.decode(other, [level]), alone)
        assert alone.shape == (2, 3, 16, 16)


def test_every_parameter_receives_a_gradient(factors):
    model = small_autoencoder(factors).train()
    model(synthetic_images(4).double()).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_dropped_levels_are_blank_for_that_image_alone():
    model = small_autoencoder((2, 4))
    images = synthetic_images(2).double()
    keep = torch.tensor([[True, True], [True, False]])
    mixed, codes = model(images, keep=keep).images, model.encode(images)
    torch.testing.assert_close(mixed[0], model.decode(codes)[0])
    torch.testing.assert_close(mixed[1], model.decode(codes, [0])[1])


def test_without_quantisation_the_encoder_passes_unrounded():
    model = small_autoencoder((4,))
    images = synthetic_images(2).double()
    free, rounded = model(images, quantize=False), model(images)
    assert not torch.allclose(free.images, rounded.images)
    assert free.loss == free.error
    assert rounded.loss > rounded.error


def test_loss_is_error_plus_weighted_commitment(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(2).double()
    result = model(images)
    error = ((result.images - images) / 0.25).square().mean()
    pull = 0.25 * sum(level.commitment for level in result.levels)
    torch.testing.assert_close(result.loss, error + pull)


def test_a_size_that_does_not_divide_says_what_would():
    with pytest.raises(ValueError, match=r"multiples of 8 .* got 30x33; crop or resize to 24x32"):
        VQVAE(small_config((2, 4))).encode(torch.rand(1, 3, 30, 33))


@pytest.mark.parametrize("factors", [(3,), (0, 4), (2, 0), (-2,)])
def test_a_factor_that_is_no_power_of_two_is_refused(factors):
    with pytest.raises(ValueError, match="power of two"):
        small_config(factors)


def test_codes_of_another_number_of_levels_are_refused():
    with pytest.raises(ValueError, match="2 levels, coarsest first, got 1"):
        small_autoencoder((2, 4)).decode([torch.zeros(1, 2, 2, dtype=torch.int64)])
