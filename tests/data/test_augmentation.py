"""Augmented images: each image with its crops and mirror images."""

from dataclasses import replace

import pytest
import torch
from small_runs import outcome, small_run, train

from vqvae2.data.augmentation import AugmentationConfig, AugmentedImages
from vqvae2.data.codes import read_codes
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.pipeline import Pipeline
from vqvae2.training.session import Stopped
from vqvae2.weights import code_fingerprint

CONFIG = AugmentationConfig(mirror=True, crops=2)


@pytest.fixture(scope="module")
def split():
    return open_images(DataConfig(size=16, synthetic_images=20)).train


def test_without_augmentation_the_images_are_unchanged(split):
    augmented = AugmentedImages(split, AugmentationConfig(), seed=0)
    everything = torch.arange(len(split))
    assert torch.equal(augmented.batch(everything), split.batch(everything))
    assert augmented.fingerprint() == split.fingerprint()
    assert torch.equal(augmented.labels, split.labels)


def test_augmented_images_are_the_image_its_crops_and_all_of_them_mirrored(split):
    augmented = AugmentedImages(split, CONFIG, seed=0)
    assert len(augmented) == 6 * len(split)
    for number in (0, 7):
        images = augmented.batch(range(6 * number, 6 * number + 6))
        assert torch.equal(images[0], split.batch([number])[0])
        assert torch.equal(images[3:], images[:3].flip(3))
        assert not torch.equal(images[1], images[2])
        assert (augmented.labels[6 * number :][:6] == split.labels[number]).all()


def test_an_augmented_image_depends_on_seed_and_index_alone(split):
    augmented = AugmentedImages(split, CONFIG, seed=0)
    indices = torch.tensor([31, 4, 31, 80, 5])
    together = augmented.batch(indices)
    for index, image in zip(indices.tolist(), together, strict=True):
        assert torch.equal(augmented.batch([index])[0], image)
    other = AugmentedImages(split, CONFIG, seed=1)
    assert not torch.equal(other.batch(indices), together)
    plain = AugmentedImages(split, AugmentationConfig(), seed=0)
    assert len({images.fingerprint() for images in (augmented, other, plain)}) == 3


def test_a_crop_of_the_full_side_is_the_image(split):
    augmented = AugmentedImages(split, AugmentationConfig(crops=1, crop_side=1.0), seed=0)
    assert torch.equal(augmented.batch([9])[0], split.batch([4])[0])


def test_priors_are_trained_on_the_codes_of_all_augmented_images(tmp_path):
    run = replace(small_run(), augmentation=CONFIG)
    folder = train(tmp_path / "uninterrupted", run)
    pipeline = Pipeline.open(folder.path)
    known = code_fingerprint(pipeline.autoencoder)
    codes = read_codes(folder.codes, "train", known)
    data = open_images(run.data)
    assert len(codes) == 6 * len(data.train)
    assert len(read_codes(folder.codes, "validation", known)) == len(data.validation)
    mirrored = data.train.batch([3]).flip(3).float() / 255
    for level, expected in zip(codes.levels, pipeline.encode(mirrored), strict=True):
        assert level[6 * 3 + 3].tolist() == expected[0].tolist()
    with pytest.raises(Stopped):
        train(tmp_path / "parts", run, stop_after=17)
    assert outcome(train(tmp_path / "parts", run)) == outcome(folder)


def test_augmentation_can_change_until_a_prior_has_begun(tmp_path):
    run = small_run()
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=11)
    train(tmp_path, replace(run, augmentation=AugmentationConfig(mirror=True)))
    with pytest.raises(ValueError, match=r"begun with another config \(augmentation"):
        train(tmp_path, run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crops": -1}, "crops must be at least 0, got -1"),
        ({"crop_side": 0.0}, r"crop_side must be in \(0, 1\], got 0"),
        ({"crop_side": float("nan")}, r"crop_side must be in \(0, 1\], got nan"),
    ],
)
def test_invalid_augmentation_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        AugmentationConfig(**change)
