"""Density and coverage."""

import numpy as np
import pytest
import torch

from vqvae2.metrics.density_coverage import density_coverage


def normal(count: int, seed: int = 0, size: int = 4) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def test_both_equal_brute_force():
    real, samples = normal(50).double().numpy(), normal(40, 1).double().numpy()
    distances = np.sqrt(((real[:, None] - real[None]) ** 2).sum(-1))
    radius = np.sort(distances, axis=1)[:, 5]
    inside = np.sqrt(((samples[:, None] - real[None]) ** 2).sum(-1)) <= radius
    expected = inside.sum() / (5 * 40), inside.any(axis=0).mean()
    assert density_coverage(torch.from_numpy(real), torch.from_numpy(samples)) == pytest.approx(
        expected
    )


def test_samples_of_the_same_distribution_have_density_and_coverage_of_about_one():
    density, coverage = density_coverage(normal(1000), normal(1000, 1))
    assert density == pytest.approx(1, abs=0.1)
    assert coverage > 0.95


def test_mode_collapse_keeps_density_and_loses_coverage():
    density, coverage = density_coverage(normal(500), normal(500, 1) * 0.2)
    assert density > 1
    assert coverage < 0.6


def test_an_outlier_accepts_no_samples_at_a_distance():
    """Its large ball would make their precision 1."""
    real = torch.cat([normal(500), torch.full((1, 4), 50.0)])
    samples = normal(500, 1) + 30
    density, coverage = density_coverage(real, samples)
    assert density <= 1 / 5
    assert coverage == pytest.approx(1 / 501)
