"""Several views of each picture, for more codes."""

from dataclasses import replace

import pytest
import torch
from test_runs import outcome, small_run, train

from vqvae2.data.codes import read_codes
from vqvae2.data.images import DataConfig, open_pictures
from vqvae2.data.views import Views, ViewsConfig
from vqvae2.pipeline import Pipeline
from vqvae2.training.learn import Stopped
from vqvae2.weights import fingerprint

CONFIG = ViewsConfig(mirror=True, crops=2)


@pytest.fixture(scope="module")
def split():
    return open_pictures(DataConfig(size=16, synthetic_pictures=20)).train


def test_one_view_is_the_picture_itself(split):
    views = Views(split, ViewsConfig(), seed=0)
    everything = torch.arange(len(split))
    assert torch.equal(views.batch(everything), split.batch(everything))
    assert views.fingerprint() == split.fingerprint()
    assert torch.equal(views.labels, split.labels)


def test_views_are_the_picture_its_crops_and_all_of_them_mirrored(split):
    views = Views(split, CONFIG, seed=0)
    assert len(views) == 6 * len(split)
    for number in (0, 7):
        images = views.batch([6 * number + view for view in range(6)])
        assert torch.equal(images[0], split.batch([number])[0])
        assert torch.equal(images[3:], images[:3].flip(3))
        assert not torch.equal(images[1], images[2])
        assert (views.labels[6 * number :][:6] == split.labels[number]).all()


def test_a_view_depends_on_seed_and_number_alone(split):
    views = Views(split, CONFIG, seed=0)
    numbers = torch.tensor([31, 4, 31, 80, 5])
    together = views.batch(numbers)
    for number, image in zip(numbers.tolist(), together, strict=True):
        assert torch.equal(views.batch([number])[0], image)
    other = Views(split, CONFIG, seed=1)
    assert not torch.equal(other.batch(numbers), together)
    assert len({v.fingerprint() for v in (views, other, Views(split, ViewsConfig(), 0))}) == 3


def test_a_crop_of_the_whole_side_is_the_picture(split):
    views = Views(split, ViewsConfig(crops=1, crop_side=1.0), seed=0)
    assert torch.equal(views.batch([9])[0], split.batch([4])[0])


def test_a_run_with_views_learns_from_the_codes_of_all(tmp_path):
    run = replace(small_run(), views=CONFIG)
    whole = train(tmp_path / "whole", run)
    pipeline = Pipeline.load(whole.path)
    codes = read_codes(whole.codes, "train", fingerprint(pipeline.autoencoder))
    pictures = open_pictures(run.data)
    assert len(codes) == 6 * len(pictures.train)
    assert len(read_codes(whole.codes, "held_out", fingerprint(pipeline.autoencoder))) == len(
        pictures.held_out
    )
    mirrored = pictures.train.batch([3]).flip(3).float() / 255
    for level, expected in zip(codes.levels, pipeline.encode(mirrored), strict=True):
        assert level[6 * 3 + 3].tolist() == expected[0].tolist()
    with pytest.raises(Stopped):
        train(tmp_path / "parts", run, stop_after=17)
    assert outcome(train(tmp_path / "parts", run)) == outcome(whole)


def test_views_can_change_until_a_prior_has_begun(tmp_path):
    run = small_run()
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=11)
    train(tmp_path, replace(run, views=ViewsConfig(mirror=True)))
    with pytest.raises(ValueError, match=r"begun with another config \(views"):
        train(tmp_path, run)


def test_what_is_no_view_is_told():
    with pytest.raises(ValueError, match=r"crops must be 0 or more .* got -1"):
        replace(small_run(), views=ViewsConfig(crops=-1)).check()
