import numpy as np
import pytest
import torch

from vqvae2.metrics.extractors import stream
from vqvae2.metrics.kid import feature_scale, kernel_distance


def test_kid_matches_numpy(features):
    """With subsets as large as the sets every subset is the same."""
    a, b = (part.numpy() for part in features)

    def kernel(x, y):
        return (x @ y.T / x.shape[1] + 1) ** 3

    n = len(a)
    expected = sum((k.sum() - np.trace(k)) / (n * (n - 1)) for k in (kernel(a, a), kernel(b, b)))
    expected -= 2 * kernel(a, b).mean()
    mean, deviation = kernel_distance(*features)
    assert mean == pytest.approx(expected, rel=1e-4)
    assert deviation < 1e-12


def test_kid_of_a_set_with_itself_is_near_0(features):
    # The estimate is unbiased, so it may be a little below 0.
    assert abs(kernel_distance(features[0], features[0])[0]) < 1e-3


def test_kid_does_not_grow_with_the_scale_of_unbounded_features(features):
    real, other = features
    unit = feature_scale(100 * real) / 100
    expected = kernel_distance(real / unit, other / unit)[0]
    for factor in (100, 10_000):
        assert kernel_distance(factor * real, factor * other)[0] == pytest.approx(expected)
    assert abs(expected) < 10


def test_kid_of_features_below_the_scale_is_the_published_formula(features):
    assert feature_scale(features[0]) == 1
    assert feature_scale(3 * torch.ones(4, 2)) == pytest.approx(3)


def test_kid_does_not_depend_on_order(extractor, images, features):
    other = torch.cat(list(stream(extractor.features, images[1].flip(0).split(7))))
    expected = kernel_distance(*features)
    assert kernel_distance(features[0], other) == pytest.approx(expected, rel=1e-5)


def test_kid_leaves_the_global_generator_alone(features):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    kernel_distance(*features)
    assert torch.equal(torch.rand(3), expected)


def test_kid_of_too_few_images_is_one_clear_line(features):
    with pytest.raises(ValueError, match="KID needs at least 2 images"):
        kernel_distance(features[0], features[1][:1])
