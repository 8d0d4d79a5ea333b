from dataclasses import replace

import pytest
import torch
from builders import small_autoencoder, small_config, synthetic_images

from vqvae2.autoencoder import VQVAE, CodebookConfig, PixelsConfig, VQVAEConfig
from vqvae2.code_grid import CodeGrid


def test_levels_are_a_list_coarsest_first(factors):
    model = small_autoencoder(factors)
    codes = model.encode(synthetic_images(2).double())
    assert len(codes) == len(factors) == model.config.num_levels
    sizes = [code.shape[1:].numel() for code in codes]
    assert sizes == sorted(sizes)
    assert [CodeGrid(24, *code.shape[1:]) for code in codes] == model.config.grids(16, 16)
    assert all(code.dtype == torch.int64 for code in codes)


def test_paper_models_have_the_paper_grids():
    assert VQVAEConfig().grids(256, 256) == [CodeGrid(512, 32, 32), CodeGrid(512, 64, 64)]
    grids = VQVAEConfig(factors=(2, 2, 8)).grids(1024, 1024)
    assert [grid.shape for grid in grids] == [(32, 32), (64, 64), (128, 128)]


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
    before = model.encode(images)
    # Another coarsest codebook changes what the finer levels choose, for the same image.
    model.codebooks[0].vectors.copy_(torch.randn_like(model.codebooks[0].vectors) * 3)
    changed = model.encode(images)
    assert not torch.equal(before[1], changed[1])
    assert not torch.equal(before[2], changed[2])


def test_the_decoder_reads_every_level(factors):
    model = small_autoencoder(factors)
    codes = model.encode(synthetic_images(2).double())
    expected = model.decode(codes)
    for level in range(len(codes)):
        others = [other for other in range(len(codes)) if other != level]
        assert not torch.allclose(model.decode(codes, others), expected)


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
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_dropped_levels_are_blank_for_that_image_only():
    model = small_autoencoder((2, 4))
    images = synthetic_images(2).double()
    keep = torch.tensor([[True, True], [True, False]])
    mixed, codes = model(images, keep=keep).images, model.encode(images)
    torch.testing.assert_close(mixed[0], model.decode(codes)[0])
    torch.testing.assert_close(mixed[1], model.decode(codes, [0])[1])


def test_without_quantisation_the_encoder_vectors_are_decoded():
    model = small_autoencoder((4,))
    images = synthetic_images(2).double()
    continuous, quantized = model(images, quantize=False), model(images)
    assert not torch.allclose(continuous.images, quantized.images)
    assert continuous.loss == continuous.error
    assert quantized.loss > quantized.error


def test_loss_is_error_plus_weighted_commitment(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(2).double()
    result = model(images)
    error = ((result.images - images) / 0.25).square().mean()
    commitment = 0.25 * sum(level.commitment for level in result.levels)
    torch.testing.assert_close(result.loss, error + commitment)


def test_a_size_that_does_not_divide_says_what_would():
    with pytest.raises(ValueError, match=r"multiples of 8 .* got 30x33; crop or resize to 24x32"):
        VQVAE(small_config((2, 4))).encode(torch.rand(1, 3, 30, 33))


@pytest.mark.parametrize("factors", [(3,), (0, 4), (2, 0), (-2,)])
def test_a_factor_that_is_not_a_power_of_two_is_refused(factors):
    with pytest.raises(ValueError, match="power of two"):
        small_config(factors)


def test_codes_of_another_number_of_levels_are_refused():
    with pytest.raises(ValueError, match="2 levels, coarsest first, got 1"):
        small_autoencoder((2, 4)).decode([torch.zeros(1, 2, 2, dtype=torch.int64)])


@pytest.mark.parametrize("batch_size", [1, 7, 32])
def test_codebooks_start_from_the_same_vectors_a_part_of_the_images_at_a_time(factors, batch_size):
    """To rounding: which algorithm a convolution uses depends on the number of images."""
    images, states, sizes = synthetic_images(32).double(), [], []
    for size in (None, batch_size):
        torch.manual_seed(0)
        model = VQVAE(small_config(factors)).double()
        first = model.encoders[-1]
        first.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        model.start_codebooks(images, torch.Generator().manual_seed(0), size)
        states.append(model.state_dict())
    num_levels = len(factors)
    assert sizes[:num_levels] == [32] * num_levels
    assert max(sizes[num_levels:]) == batch_size
    assert sum(sizes) == 2 * 32 * num_levels
    for name, value in states[0].items():
        exact = 0 if batch_size == 32 else 1e-12
        torch.testing.assert_close(states[1][name], value, rtol=exact, atol=exact)


def test_a_tiny_model_with_other_codes_per_level_encodes_decodes_and_trains():
    torch.manual_seed(0)
    codebooks = (
        CodebookConfig(num_codes=128, code_size=4),
        CodebookConfig(num_codes=512, code_size=6),
        CodebookConfig(num_codes=8, code_size=3),
    )
    model = VQVAE(replace(small_config((2, 2, 2)), codebooks=codebooks))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator, images = torch.Generator().manual_seed(0), synthetic_images(40)
    model.start_codebooks(images, generator)
    result = model(images)
    result.loss.backward()
    optimizer.step()
    model.update_codebooks(result.levels, generator)
    codes = model.encode(images)
    grids = model.config.grids(16, 16)
    assert [grid.num_codes for grid in grids] == [128, 512, 8]
    for grid, level in zip(grids, codes, strict=True):
        assert level.max() < grid.num_codes
    assert model.decode(codes).shape == images.shape


def test_equal_codebooks_are_used_for_every_level():
    config = VQVAEConfig(factors=(2, 2, 4), codebooks=(CodebookConfig(num_codes=7),))
    assert config.codebooks == (CodebookConfig(num_codes=7),) * 3
    assert len(replace(config, factors=(2, 4)).codebooks) == 2
    codebooks = (CodebookConfig(num_codes=7), CodebookConfig(num_codes=8))
    with pytest.raises(ValueError, match="one for each of 3, got 2"):
        replace(config, codebooks=codebooks)
    with pytest.raises(ValueError, match="one for each of 2, got 0"):
        VQVAEConfig(codebooks=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels must be at least 1, got 0"),
        ({"num_residual_blocks": -1}, "num_residual_blocks must be at least 0, got -1"),
        ({"commitment_weight": float("nan")}, "commitment_weight must be at least 0, got nan"),
        ({"pixel_std": 0.0}, "pixel_std must be above 0, got 0.0"),
    ],
)
def test_invalid_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        VQVAEConfig(**options)


def test_a_config_builds_its_model():
    config = small_config((2, 4))
    assert config.build().config is config
    assert PixelsConfig().build().config == PixelsConfig()


def test_the_neighbours_of_a_code_begin_with_itself_and_are_sorted():
    codebook = small_autoencoder((4,)).codebooks[0]
    table = codebook.neighbours(5)
    distances = torch.cdist(codebook.vectors, codebook.vectors)
    assert torch.equal(table[:, 0], torch.arange(24))
    sorted_distances = distances.gather(1, table)
    assert (sorted_distances.diff(dim=1) >= 0).all()
    others = distances.fill_diagonal_(1e9).sort(dim=1).values
    assert torch.equal(sorted_distances[:, 1:], others[:, :5])


def test_perturbed_codes_reach_the_decoder_and_not_the_codebooks(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(4).double()
    grids = model.config.grids(16, 16)
    zeros = [torch.zeros(4, *grid.shape, dtype=torch.int64) for grid in grids]
    plain = model(images)
    kept = model(images, neighbours=zeros)
    assert torch.equal(kept.images, plain.images)
    moved = [level.clone() for level in zeros]
    moved[0][1] = 1
    result = model(images, neighbours=moved)
    assert torch.equal(result.levels[0].codes, plain.levels[0].codes)
    same = [torch.equal(a, b) for a, b in zip(result.images, plain.images, strict=True)]
    assert same == [True, False, True, True]
    result.loss.backward()
    assert all(p.grad is not None for p in model.parameters())
