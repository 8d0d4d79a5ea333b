"""The classification accuracy score: the classifier, and who learns from what."""

import pytest
import torch
from builders import synthetic_images

from vqvae2.data.synthetic import render
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.accuracy_score import (
    ClassifierTraining,
    ImagesInMemory,
    ResNet,
    accuracy_by_class,
    in_batches,
    moved,
    train_on,
)

QUICK = ClassifierTraining(depth=8, steps=150, batch=32, learning_rate=0.1)


def built_in(count: int, first: int = 0) -> ImagesInMemory:
    drawn = render(torch.arange(first, first + count), 16, seed=0)
    return ImagesInMemory(drawn.images, drawn.labels)


def test_the_network_is_that_of_the_paper():
    # He et al. 2015, Tab. 6: 0.27 and 0.85 million weights at depth 20 and 56.
    counts = [sum(p.numel() for p in ResNet(10, depth).parameters()) for depth in (20, 56)]
    assert [round(count / 1e6, 2) for count in counts] == [0.27, 0.85]
    layers = [
        m for m in ResNet(10, 20).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert len(layers) == 20


@pytest.mark.parametrize("side", [8, 16, 32, 64, 100])
def test_images_of_any_side_are_told_apart(side):
    assert ResNet(5, 8, side).eval()(torch.rand(2, 3, side, side)).shape == (2, 5)


def test_a_classifier_learns_from_good_images_and_not_from_mixed_up_ones():
    train, test = built_in(600), built_in(200, first=5000)
    every = torch.arange(len(test))
    found = accuracy_by_class(train_on(train, 12, QUICK), in_batches(test, every), 12)
    mixed = ImagesInMemory(train.pixels, train.labels[torch.randperm(600)])
    lost = accuracy_by_class(train_on(mixed, 12, QUICK), in_batches(test, every), 12)
    assert found.nanmean() > 0.5
    assert lost.nanmean() < 0.25


def test_the_same_images_and_seed_give_the_same_classifier():
    short = ClassifierTraining(depth=8, steps=3, batch=8)
    first, again = (train_on(built_in(40), 12, short) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_accuracy_is_counted_by_class():
    class Bright(torch.nn.Module):
        """Class 1 for bright images."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, images):
            mean = images.mean(dim=(1, 2, 3))
            return torch.stack([0.5 - mean, mean - 0.5, mean * 0 - 9], dim=1)

    pixels = torch.tensor([0, 0, 255, 255, 255]).byte()[:, None, None, None].expand(5, 3, 4, 4)
    batches = iter([(pixels[:2], torch.tensor([0, 1])), (pixels[2:], torch.tensor([1, 1, 0]))])
    found = accuracy_by_class(Bright(), batches, 3)
    assert found[:2].tolist() == [0.5, pytest.approx(2 / 3)]
    assert found[2].isnan()


def test_shifts_and_mirrors_keep_what_is_there():
    images = to_uint8(synthetic_images(64))
    assert torch.equal(moved(images, 0, 3), moved(images, 0, 3))
    assert not torch.equal(moved(images, 0, 3), moved(images, 0, 4))
    small = to_uint8(synthetic_images(64, size=7))
    either = torch.stack([small, small.flip(3)])
    assert (moved(small, 0, 0) == either).flatten(2).all(2).any(0).all(), "no room to shift"
    mirrored = (moved(small, 0, 0) == either[1]).flatten(1).all(1)
    assert 10 < mirrored.sum() < 54


def test_what_cannot_be_trained_is_one_clear_line():
    few = built_in(30)
    some = few.labels < 10
    few = ImagesInMemory(few.pixels[some], few.labels[some])
    with pytest.raises(ValueError, match=r"got none of \d+ of 12 classes \(numbers .*10, 11\)"):
        train_on(few, 12, QUICK)
    with pytest.raises(ValueError, match="depth must be 6 n"):
        ClassifierTraining(depth=18)
    with pytest.raises(ValueError, match="at least 1, got 0 and 128"):
        ClassifierTraining(steps=0)
