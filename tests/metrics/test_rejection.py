from itertools import pairwise

import pytest
import torch

from vqvae2.metrics.rejection import class_scores, select_best


def test_the_best_of_each_class_are_selected_in_ascending_order():
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    scores = torch.tensor([0.1, 0.9, 0.8, 0.2, 0.7, 0.3, 0.2, 0.4])
    assert select_best(scores, labels, torch.tensor([2, 2])).tolist() == [1, 2, 4, 7]
    assert select_best(scores, labels, torch.tensor([1, 3])).tolist() == [1, 2, 5, 7]
    assert select_best(scores, labels, torch.tensor([0, 9, 0])).tolist() == [1, 3, 5, 7]


def test_a_smaller_selection_is_part_of_a_larger_one():
    torch.manual_seed(0)
    labels, scores = torch.randint(0, 5, (400,)), torch.rand(400)
    selections = [
        set(select_best(scores, labels, torch.full((5,), n)).tolist()) for n in (3, 9, 20, 60)
    ]
    assert all(a < b for a, b in pairwise(selections))
    assert [len(selection) for selection in selections] == [15, 45, 100, 300]


def test_of_equal_scores_the_earlier_sample_is_selected():
    selected = select_best(torch.ones(6), torch.zeros(6).long(), torch.tensor([3]))
    assert selected.tolist() == [0, 1, 2]


def test_a_score_is_the_probability_of_the_requested_class():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    scores = class_scores(probabilities, torch.tensor([1, 2]), 3, "Net")
    assert scores.tolist() == pytest.approx([0.2, 0.8])
    with_background = torch.tensor([[0.5, 0.3, 0.2]])
    scores = class_scores(with_background, torch.tensor([1]), 2, "Net")
    assert scores.tolist() == pytest.approx([0.2])


def test_a_network_of_other_classes_cannot_select():
    with pytest.raises(ValueError, match="has 10 classes, the model has 3"):
        class_scores(torch.ones(2, 10), torch.tensor([0, 1]), 3, "Net")
