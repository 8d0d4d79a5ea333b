import weakref
from dataclasses import replace

import pytest
import torch
from builders import synthetic_images

from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.features import (
    Features,
    cached_features,
    distances_between,
    extract_features,
)
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.precision_recall import precision_recall
from vqvae2.metrics.sharpness import Sharpness


def test_features_are_extracted_once_for_all_metrics(extractor, images, features):
    real, other = (extract_features(extractor, part.split(64)) for part in images)
    measured = distances_between(real, other)
    expected = frechet_distance([features[0]], [features[1]])
    assert measured["fid"] == pytest.approx(expected, rel=1e-4)
    precision, recall = precision_recall(*features)
    assert measured["precision"] == pytest.approx(precision)
    assert measured["recall"] == pytest.approx(recall)
    assert measured.num_images == 300
    assert distances_between(real, other.select(torch.arange(50))).num_images == 50


def test_sets_without_images_of_two_sizes_or_of_one_channel_are_one_clear_line(extractor):
    small, large = (
        extract_features(extractor, [to_uint8(synthetic_images(12, side))]) for side in (16, 32)
    )
    with pytest.raises(ValueError, match=r"two sizes .* \(3, 16, 16\) and \(3, 32, 32\)"):
        distances_between(small, large)
    with pytest.raises(ValueError, match=r"Expected images \(B, 3, H, W\) of one size"):
        extract_features(extractor, [torch.zeros(4, 1, 16, 16, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="of one size"):
        extract_features(extractor, [to_uint8(synthetic_images(4, side)) for side in (16, 32)])
    with pytest.raises(ValueError, match="at least one image to extract features of"):
        extract_features(extractor, [])


def test_no_batch_outlives_the_extraction_of_the_next_ones(extractor):
    """Small tensors kept between large ones make the memory of a process grow."""
    alive = []

    def count_alive(images):
        outputs = extractor.outputs(images)
        for tensor in (outputs.features, outputs.probabilities):
            alive.append(weakref.ref(tensor.untyped_storage()))
        counts.append(sum(storage() is not None for storage in alive))
        return outputs

    counts = []
    counted = replace(extractor, network=count_alive)
    images = to_uint8(synthetic_images(96))
    features = extract_features(counted, images.split(8))
    assert len(counts) == 12
    assert max(counts) <= 6, "three batches of two tensors each"
    assert torch.equal(features.features, extract_features(extractor, images.split(8)).features)


def test_class_accuracy_is_the_share_of_labels_with_the_highest_probability():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    labels = torch.tensor([0, 1, 1])
    sharpness = Sharpness.of(torch.rand(3, 3, 8, 8))
    features = Features(torch.zeros(3, 2), probabilities, (3, 8, 8), sharpness)
    assert features.class_accuracy(labels, 2) == pytest.approx(2 / 3)
    with_background = torch.cat([torch.ones(3, 1), probabilities], 1)
    features = Features(torch.zeros(3, 2), with_background, (3, 8, 8), sharpness)
    assert features.class_accuracy(labels, 2) == pytest.approx(2 / 3)
    assert features.class_accuracy(labels, 5) is None, "other classes"


def test_features_of_the_same_pixels_are_extracted_once(extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE2_CACHE", str(tmp_path))
    calls = []

    def count(images):
        calls.append(len(images))
        return extractor.outputs(images)

    counted = replace(extractor, network=count)
    images = to_uint8(synthetic_images(12))
    first = cached_features(counted, lambda: [images])
    again = cached_features(counted, lambda: [images])
    assert len(calls) == 1
    assert torch.equal(first.features, again.features)
    assert (first.shape, again.shape) == ((3, 16, 16), (3, 16, 16))
    cached_features(counted, lambda: [255 - images])
    assert len(calls) == 2, "other pixels"
    cached_features(replace(counted, digest="other"), lambda: [images])
    assert len(calls) == 3, "another network"
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(cached_features(counted, lambda: [images]).features, first.features)
    assert len(calls) == 4, "a damaged file"
    monkeypatch.setenv("VQVAE2_CACHE", "/proc/nowhere")
    assert len(cached_features(counted, lambda: [images])) == 12
