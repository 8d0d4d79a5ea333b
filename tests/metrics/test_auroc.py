import pytest
import torch

from vqvae2.metrics.auroc import auroc


def test_auroc_is_how_often_an_inside_score_is_the_higher_one():
    torch.manual_seed(0)
    inside, outside = 40 * torch.randn(60) - 3000, 40 * torch.randn(80) - 3030
    higher = (inside[:, None] > outside).double().mean().item()
    assert auroc(inside, outside) == pytest.approx(higher)
    assert auroc(torch.ones(3), torch.ones(5)) == pytest.approx(0.5)
    assert auroc(torch.tensor([5.0]), torch.tensor([1.0])) == 1
    with pytest.raises(ValueError, match="needs images of both sets, got 0 and 2"):
        auroc(torch.ones(0), torch.ones(2))
