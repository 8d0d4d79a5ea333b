import numpy as np
import pytest
import torch

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import (
    UNKNOWN,
    SamplingConfig,
    sample_hierarchy,
    uniforms,
)

CONFIG = GatedPixelCNNConfig(
    channels=8, residual_channels=8, num_layers=3, attention_every=2, num_heads=2
)
GRIDS = [CodeGrid(6, 2, 2), CodeGrid(7, 4, 4), CodeGrid(5, 8, 8)]


@pytest.fixture(params=[1, 2, 3], ids=["1-level", "2-levels", "3-levels"])
def priors(request):
    torch.manual_seed(0)
    return [
        Prior(
            CONFIG,
            Domain(
                grid=GRIDS[level],
                coarser=tuple(GRIDS[:level]),
                num_classes=3,
            ),
        )
        .double()
        .eval()
        for level in range(request.param)
    ]


def sample(priors, labels, seeds, **options):
    sampling = options.pop("sampling", [SamplingConfig()] * len(priors))
    return sample_hierarchy(priors, labels, seeds, sampling, **options)


def test_an_image_depends_on_its_seed_and_label_not_on_its_batch(priors):
    labels, seeds = [0, 1, 2, 0, 1], [5, 6, 7, 8, 5]
    together = sample(priors, labels, seeds)
    for i in range(5):
        alone = sample(priors, labels[i : i + 1], seeds[i : i + 1])
        for maps, single in zip(together, alone, strict=True):
            assert torch.equal(maps[i], single[0])
    reversed_batch = sample(priors, labels[::-1], seeds[::-1])
    for maps, other in zip(together, reversed_batch, strict=True):
        assert torch.equal(maps, other.flip(0))


def test_other_seeds_and_classes_give_other_images(priors):
    a, b, c = (sample(priors, *spec) for spec in [([0], [1]), ([0], [2]), ([1], [1])])
    assert not torch.equal(a[-1], b[-1])
    if len(priors) > 1:
        assert not torch.equal(a[-1], c[-1])


def test_a_partly_given_map_keeps_what_was_given(priors):
    full = sample(priors, [0, 1], [1, 2])
    given = [codes.clone() for codes in full]
    given[-1][:, given[-1].shape[1] // 2 :] = UNKNOWN
    again = sample(priors, [0, 1], [3, 4], given=given)
    for level in range(len(priors)):
        is_given = given[level] != UNKNOWN
        assert torch.equal(again[level][is_given], given[level][is_given])
    assert not torch.equal(again[-1], full[-1])


def test_the_rest_of_a_partly_given_map_is_sampled_from_the_same_conditional(priors):
    """With the same noise, the completed map equals the complete one."""
    full = sample(priors, [0, 1], [1, 2])
    given = [codes.clone() for codes in full]
    given[-1].view(2, -1)[:, ::3] = UNKNOWN
    for maps, again in zip(full, sample(priors, [0, 1], [1, 2], given=given), strict=True):
        assert torch.equal(maps, again)


def test_giving_the_coarsest_level_gives_variations(priors):
    given = [None] * len(priors)
    if len(priors) > 1:
        given[0] = sample(priors, [0], [1])[0]
    a, b = (sample(priors, [0], [seed], given=given) for seed in (11, 12))
    if len(priors) > 1:
        assert torch.equal(a[0], b[0])
    assert not torch.equal(a[-1], b[-1])


@torch.no_grad()
def test_sampled_frequencies_are_the_prior_probabilities():
    torch.manual_seed(0)
    prior = Prior(CONFIG, Domain(grid=CodeGrid(3, 1, 2))).double().eval()
    count = 20_000
    labels = torch.zeros(count, dtype=torch.int64)
    (codes,) = sample_hierarchy([prior], labels, range(count), [SamplingConfig()])
    frequencies = torch.bincount(codes.flatten(1) @ torch.tensor([3, 1]), minlength=9) / count
    maps = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 2)
    expected = prior.log_prob(maps, labels[:9], []).sum(dim=(1, 2)).exp()
    assert (frequencies - expected).abs().max() < 5 * 0.5 / count**0.5


def test_bad_requests_are_one_clear_line(priors):
    with pytest.raises(ValueError, match="got 2 seeds for 1 labels"):
        sample(priors, [0], [1, 2])
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\)"):
        sample(priors, [3], [1])
    with pytest.raises(ValueError, match="one sampling config per level"):
        sample(priors, [0], [1], sampling=[SamplingConfig()] * 9)
    wrong_shape = [torch.zeros(1, 3, 3, dtype=torch.int64)] + [None] * (len(priors) - 1)
    with pytest.raises(ValueError, match="must have shape"):
        sample(priors, [0], [1], given=wrong_shape)
    out_of_range = [torch.full((1, 2, 2), 6)] + [None] * (len(priors) - 1)
    with pytest.raises(ValueError, match=r"must be in \[0, 6\)"):
        sample(priors, [0], [1], given=out_of_range)


@pytest.mark.parametrize("convert", [np.array, torch.tensor, lambda x: list(torch.tensor(x))])
def test_seeds_and_labels_of_any_integer_type_give_the_same_codes(priors, convert):
    expected = sample(priors, [0, 2], [5, 6])
    codes = sample(priors, convert([0, 2]), convert([5, 6]))
    assert all(torch.equal(a, b) for a, b in zip(codes, expected, strict=True))
    for a, b in zip(uniforms(convert([5, 6]), 9, 1), uniforms([5, 6], 9, 1), strict=True):
        assert torch.equal(a, b)
