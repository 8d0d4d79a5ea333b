"""Spectra and gradients of sets."""

import pytest
import torch
from builders import synthetic_images

from vqvae2.metrics.sharpness import MeanSharpness, Sharpness


def test_the_mean_over_batches_is_that_of_all_images():
    images = synthetic_images(20)
    mean = MeanSharpness()
    for part in images.split(6):
        mean.add(part)
    all_at_once, found = Sharpness.of(images), mean.mean()
    torch.testing.assert_close(found.spectra[0], all_at_once.spectra.mean(dim=0))
    torch.testing.assert_close(found.gradients[0], all_at_once.gradients.mean(dim=0))
    other = Sharpness.of(synthetic_images(20, first=40))
    direct, by_means = all_at_once.distances(other), found.distances(other)
    assert by_means == pytest.approx(direct, abs=1e-5)


def test_a_set_has_no_distance_to_itself():
    sharpness = Sharpness.of(synthetic_images(8))
    assert set(sharpness.distances(sharpness).values()) == {0.0}
