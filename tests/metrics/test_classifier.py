from dataclasses import dataclass

import pytest
import torch
from builders import synthetic_images

from vqvae2.data.order import Shuffle
from vqvae2.data.synthetic import render
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.classifier import (
    ClassifierTraining,
    ResNet,
    accuracy_by_class,
    as_extractor,
    mirror_and_shift,
    train_classifier,
)


@dataclass
class ImagesInMemory:
    pixels: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        return self.pixels.shape[-1]

    @property
    def order(self) -> Shuffle:
        return Shuffle(len(self))

    def batch(self, indices: torch.Tensor) -> torch.Tensor:
        return self.pixels[indices]


QUICK = ClassifierTraining(depth=8, steps=150, batch=32, learning_rate=0.1)


def built_in(count: int, first: int = 0) -> ImagesInMemory:
    batch = render(torch.arange(first, first + count), 16, seed=0)
    return ImagesInMemory(batch.images, batch.labels)


def test_the_network_is_that_of_the_paper():
    # He et al. 2015, Tab. 6: 0.27 and 0.85 million weights at depth 20 and 56.
    counts = [sum(p.numel() for p in ResNet(10, depth).parameters()) for depth in (20, 56)]
    assert [round(count / 1e6, 2) for count in counts] == [0.27, 0.85]
    layers = [
        m for m in ResNet(10, 20).modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)
    ]
    assert len(layers) == 20


@pytest.mark.parametrize("side", [8, 16, 32, 64, 100])
def test_images_of_any_side_are_classified(side):
    assert ResNet(5, 8, side).eval()(torch.rand(2, 3, side, side)).shape == (2, 5)


def test_a_classifier_learns_from_correct_labels_and_not_from_shuffled_ones():
    train, test = built_in(600), built_in(200, first=5000)
    model = train_classifier(train, 12, QUICK)
    assert accuracy_by_class(model, test, 12).nanmean() > 0.5
    noise = torch.Generator().manual_seed(0)
    shuffled = ImagesInMemory(train.pixels, train.labels[torch.randperm(600, generator=noise)])
    model = train_classifier(shuffled, 12, QUICK)
    assert accuracy_by_class(model, test, 12).nanmean() < 0.25


def test_the_same_images_and_seed_give_the_same_classifier():
    short = ClassifierTraining(depth=8, steps=3, batch=8)
    first, again = (train_classifier(built_in(40), 12, short) for _ in range(2))
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_classifier(built_in(40), 12, ClassifierTraining(depth=8, steps=1, batch=8))
    assert torch.equal(torch.rand(3), expected)


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
    images = ImagesInMemory(pixels, torch.tensor([0, 1, 1, 1, 0]))
    accuracy = accuracy_by_class(Bright(), images, 3)
    assert accuracy[:2].tolist() == [0.5, pytest.approx(2 / 3)]
    assert accuracy[2].isnan()


def test_shifts_and_mirrors_are_functions_of_the_step_and_move_whole_pixels():
    images = to_uint8(synthetic_images(64))
    assert torch.equal(mirror_and_shift(images, 0, 3), mirror_and_shift(images, 0, 3))
    assert not torch.equal(mirror_and_shift(images, 0, 3), mirror_and_shift(images, 0, 4))
    small = to_uint8(synthetic_images(64, size=7))
    either = torch.stack([small, small.flip(3)])
    moved = mirror_and_shift(small, 0, 0)
    assert (moved == either).flatten(2).all(2).any(0).all(), "too small to shift"
    mirrored = (moved == either[1]).flatten(1).all(1)
    assert 10 < mirrored.sum() < 54


def test_a_classifier_is_a_feature_extractor():
    model = train_classifier(built_in(40), 12, ClassifierTraining(depth=8, steps=2, batch=8))
    extractor = as_extractor(model, "own")
    images = built_in(4, first=60).pixels
    with torch.no_grad():
        features, probabilities = extractor.features(images), extractor.probabilities(images)
        logits = model(images.float() / 255)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    torch.testing.assert_close(model[-1](features), logits)
    assert as_extractor(model, "other").digest == extractor.digest


def test_a_training_that_cannot_be_is_one_clear_line():
    images = built_in(30)
    some = images.labels < 10
    with pytest.raises(ValueError, match=r"got none of \d+ of 12 classes \(numbers .*10, 11\)"):
        train_classifier(ImagesInMemory(images.pixels[some], images.labels[some]), 12, QUICK)
    with pytest.raises(ValueError, match="at least 2 classes, got 1; sort them into one sub-fold"):
        train_classifier(ImagesInMemory(images.pixels, images.labels * 0), 1, QUICK)
    with pytest.raises(ValueError, match="depth must be 6 n"):
        ClassifierTraining(depth=18)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        ClassifierTraining(steps=0)
