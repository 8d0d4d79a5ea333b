import pytest
import torch

from vqvae2.metrics.nearest_neighbours import nearest


def test_nearest_neighbours_equal_brute_force():
    torch.manual_seed(0)
    rows, others = torch.randn(50, 6).double(), torch.randn(2000, 6).double()
    indices, distances = nearest(rows, others, 3)
    expected = (rows[:, None] - others).square().sum(dim=2).sqrt()
    assert torch.equal(indices, expected.argsort(dim=1)[:, :3])
    torch.testing.assert_close(distances, expected.sort(dim=1).values[:, :3])
    indices, distances = nearest(others[:5], others, 1)
    assert indices[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (distances == 0).all()
    with pytest.raises(ValueError, match="at least 3 images to search, got 2"):
        nearest(rows, others[:2], 3)
