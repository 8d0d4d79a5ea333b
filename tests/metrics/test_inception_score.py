import numpy as np
import pytest
import torch

from vqvae2.metrics.extractors import stream
from vqvae2.metrics.inception_score import inception_score
from vqvae2.randomness import generator


def test_inception_score_matches_numpy(extractor, images):
    p = torch.cat(list(stream(extractor.probabilities, images[0].split(64)))).numpy()
    torch.manual_seed(generator("inception score", 0).initial_seed())
    order = torch.randperm(len(p)).numpy()
    parts = np.array_split(p[np.lexsort(p.T[::-1])][order], 10)
    scores = [np.exp((q * np.log(q / q.mean(axis=0))).sum(axis=1).mean()) for q in parts]
    mean, deviation = inception_score(torch.from_numpy(p))
    assert mean == pytest.approx(np.mean(scores), rel=1e-4)
    assert deviation == pytest.approx(np.std(scores, ddof=1), rel=1e-4)


def test_inception_score_is_the_number_of_classes_at_best_and_one_at_worst():
    certain = torch.eye(7, dtype=torch.float64).repeat(200, 1)
    assert inception_score(certain)[0] == pytest.approx(7, rel=0.05)
    assert inception_score(torch.full((50, 7), 1 / 7))[0] == pytest.approx(1)


def test_inception_score_does_not_depend_on_batches_or_order(extractor, images):
    p, q = (
        torch.cat(list(stream(extractor.probabilities, part.split(n))))
        for part, n in ((images[0], 64), (images[0].flip(0), 9))
    )
    assert inception_score(p)[0] == pytest.approx(inception_score(q)[0], rel=1e-6)


def test_inception_score_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    inception_score(torch.full((50, 7), 1 / 7))
    assert torch.equal(torch.rand(3), expected)


def test_inception_score_of_too_few_images_is_one_clear_line():
    with pytest.raises(ValueError, match="splits a set into 10 parts, got 9 images"):
        inception_score(torch.full((9, 2), 0.5))
