from itertools import pairwise

import pytest
import torch

from vqvae2.metrics.auroc import auroc
from vqvae2.metrics.nearest_neighbours import nearest
from vqvae2.metrics.rejection import intended, keep_best


def test_the_best_of_each_class_are_kept_in_their_order():
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.2, 0.7, 0.3, 0.2, 0.4])
    assert keep_best(scores, labels, torch.tensor([2, 2])).tolist() == [1, 2, 4, 7]
    assert keep_best(scores, labels, torch.tensor([1, 3])).tolist() == [1, 2, 5, 7]
    assert keep_best(scores, labels, torch.tensor([0, 9, 0])).tolist() == [1, 3, 5, 7]


def test_fewer_that_are_kept_are_among_the_more():
    torch.manual_seed(0)
    labels, scores = torch.randint(0, 5, (400,)), torch.rand(400)
    kept = [set(keep_best(scores, labels, torch.full((5,), n)).tolist()) for n in (3, 9, 20, 60)]
    assert all(a < b for a, b in pairwise(kept))
    assert [len(k) for k in kept] == [15, 45, 100, 300]


def test_equal_scores_keep_the_earlier_sample():
    kept = keep_best(torch.ones(6), torch.zeros(6).long(), torch.tensor([3]))
    assert kept.tolist() == [0, 1, 2]


def test_a_sample_is_judged_by_the_class_that_it_was_drawn_for():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert intended(probabilities, torch.tensor([1, 2]), 3, "Net").tolist() == pytest.approx(
        [0.2, 0.8]
    )
    with_background = torch.tensor([[0.5, 0.3, 0.2]])
    assert intended(with_background, torch.tensor([1]), 2, "Net").tolist() == pytest.approx([0.2])


def test_a_network_of_other_classes_cannot_judge():
    with pytest.raises(ValueError, match="tells 10 classes apart, the model has 3"):
        intended(torch.ones(2, 10), torch.tensor([0, 1]), 3, "Net")


def test_nearest_neighbours_equal_brute_force():
    torch.manual_seed(0)
    rows, others = torch.randn(50, 6).double(), torch.randn(2000, 6).double()
    indices, found = nearest(rows, others, 3)
    every = (rows[:, None] - others).square().sum(dim=2).sqrt()
    assert torch.equal(indices, every.argsort(dim=1)[:, :3])
    torch.testing.assert_close(found, every.sort(dim=1).values[:, :3])
    own, none = nearest(others[:5], others, 1)
    assert own[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert (none == 0).all()
    with pytest.raises(ValueError, match="at least 3 images to search, got 2"):
        nearest(rows, others[:2], 3)


def test_auroc_is_how_often_an_inside_score_is_the_higher():
    torch.manual_seed(0)
    inside, outside = 40 * torch.randn(60) - 3000, 40 * torch.randn(80) - 3030
    higher = (inside[:, None] > outside).double().mean().item()
    assert auroc(inside, outside) == pytest.approx(higher)
    assert auroc(torch.ones(3), torch.ones(5)) == pytest.approx(0.5)
    assert auroc(torch.tensor([5.0]), torch.tensor([1.0])) == 1
    with pytest.raises(ValueError, match="needs images of both, got 0 and 2"):
        auroc(torch.ones(0), torch.ones(2))
