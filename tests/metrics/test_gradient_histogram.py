"""Histograms of gradient magnitudes."""

import pytest
import torch

from vqvae2.metrics.gradient_histogram import (
    NUM_BINS,
    gradient_distance,
    gradient_histograms,
)


def test_shares_add_up_to_one_and_constant_images_lie_in_the_first_bin():
    images = torch.rand(3, 3, 9, 7)
    torch.testing.assert_close(gradient_histograms(images).sum(dim=1), torch.ones(3))
    constant = gradient_histograms(torch.full((1, 3, 8, 8), 0.3))
    assert constant[0, 0] == pytest.approx(1)


def test_a_ramp_has_one_magnitude():
    ramp = (torch.arange(8) * 0.1).expand(1, 3, 8, 8)
    histogram = gradient_histograms(ramp)[0]
    assert histogram[int(0.1 * NUM_BINS)] == pytest.approx(1)


def test_the_distance_is_how_much_magnitudes_differ():
    ramps = [(torch.arange(8) * slope).expand(1, 3, 8, 8) for slope in (0.1, 0.05)]
    one, other = map(gradient_histograms, ramps)
    distance = gradient_distance(one[0], other[0])
    assert distance == pytest.approx(0.05, abs=1 / NUM_BINS)
    assert gradient_distance(one[0], one[0]) == 0
