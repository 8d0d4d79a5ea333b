import numpy as np
import pytest
import scipy.linalg
import torch

from vqvae2.metrics.extractors import stream
from vqvae2.metrics.fid import frechet_distance


def test_fid_matches_scipy(features):
    a, b = (part.numpy() for part in features)
    root = scipy.linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum()
    expected += np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root)
    assert frechet_distance([features[0]], [features[1]]) == pytest.approx(expected, rel=1e-4)


def test_fid_of_a_set_with_itself_is_0(features):
    same = features[0]
    assert frechet_distance([same], [same.flip(0)]) == pytest.approx(0, abs=1e-8)


def test_fid_does_not_depend_on_batches_or_order(extractor, images, features):
    other = torch.cat(list(stream(extractor.features, images[1].flip(0).split(7))))
    expected = frechet_distance([features[0]], features[1].split(50))
    assert frechet_distance(features[0].split(11), [other]) == pytest.approx(expected, rel=1e-6)


def test_fid_of_too_few_images_or_of_two_networks_is_one_clear_line(features):
    with pytest.raises(ValueError, match="FID needs at least 2 images per set, got 300 and 1"):
        frechet_distance([features[0]], [features[1][:1]])
    with pytest.raises(ValueError, match="FID needs at least 2 images per set, got 0 and 0"):
        frechet_distance([], [])
    with pytest.raises(ValueError, match="features of one network, got 24 and 5"):
        frechet_distance([features[0]], [features[1][:, :5]])
