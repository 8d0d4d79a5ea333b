"""Several views of each image, for more codes."""

from dataclasses import replace

import pytest
import torch
from small_runs import outcome, small_run, train

from vqvae2.data.augmentation import Augmentation, AugmentationConfig
from vqvae2.data.codes import read_codes
from vqvae2.data.images import DataConfig, open_images
from vqvae2.pipeline import Pipeline
from vqvae2.training.fit import Stopped
from vqvae2.weights import fingerprint

CONFIG = AugmentationConfig(mirror=True, crops=2)


@pytest.fixture(scope="module")
def split():
    return open_images(DataConfig(size=16, synthetic_images=20)).train


def test_one_view_is_the_image_itself(split):
    augmentation = Augmentation(split, AugmentationConfig(), seed=0)
    everything = torch.arange(len(split))
    assert torch.equal(augmentation.batch(everything), split.batch(everything))
    assert augmentation.fingerprint() == split.fingerprint()
    assert torch.equal(augmentation.labels, split.labels)


def test_views_are_the_image_its_crops_and_all_of_them_mirrored(split):
    augmentation = Augmentation(split, CONFIG, seed=0)
    assert len(augmentation) == 6 * len(split)
    for number in (0, 7):
        images = augmentation.batch([6 * number + view for view in range(6)])
        assert torch.equal(images[0], split.batch([number])[0])
        assert torch.equal(images[3:], images[:3].flip(3))
        assert not torch.equal(images[1], images[2])
        assert (augmentation.labels[6 * number :][:6] == split.labels[number]).all()


def test_a_view_depends_on_seed_and_number_alone(split):
    augmentation = Augmentation(split, CONFIG, seed=0)
    numbers = torch.tensor([31, 4, 31, 80, 5])
    together = augmentation.batch(numbers)
    for number, image in zip(numbers.tolist(), together, strict=True):
        assert torch.equal(augmentation.batch([number])[0], image)
    other = Augmentation(split, CONFIG, seed=1)
    assert not torch.equal(other.batch(numbers), together)
    assert (
        len(
            {
                v.fingerprint()
                for v in (augmentation, other, Augmentation(split, AugmentationConfig(), 0))
            }
        )
        == 3
    )


def test_a_crop_of_the_whole_side_is_the_image(split):
    augmentation = Augmentation(split, AugmentationConfig(crops=1, crop_side=1.0), seed=0)
    assert torch.equal(augmentation.batch([9])[0], split.batch([4])[0])


def test_a_run_with_views_learns_from_the_codes_of_all(tmp_path):
    run = replace(small_run(), augmentation=CONFIG)
    whole = train(tmp_path / "whole", run)
    pipeline = Pipeline.load(whole.path)
    codes = read_codes(whole.codes, "train", fingerprint(pipeline.autoencoder))
    dataset = open_images(run.data)
    assert len(codes) == 6 * len(dataset.train)
    assert len(read_codes(whole.codes, "validation", fingerprint(pipeline.autoencoder))) == len(
        dataset.validation
    )
    mirrored = dataset.train.batch([3]).flip(3).float() / 255
    for level, expected in zip(codes.levels, pipeline.encode(mirrored), strict=True):
        assert level[6 * 3 + 3].tolist() == expected[0].tolist()
    with pytest.raises(Stopped):
        train(tmp_path / "parts", run, stop_after=17)
    assert outcome(train(tmp_path / "parts", run)) == outcome(whole)


def test_views_can_change_until_a_prior_has_begun(tmp_path):
    run = small_run()
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=11)
    train(tmp_path, replace(run, augmentation=AugmentationConfig(mirror=True)))
    with pytest.raises(ValueError, match=r"begun with another config \(augmentation"):
        train(tmp_path, run)


def test_what_is_no_view_is_told():
    with pytest.raises(ValueError, match=r"crops must be 0 or more .* got -1"):
        replace(small_run(), augmentation=AugmentationConfig(crops=-1)).check()
