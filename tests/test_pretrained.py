"""The trained model of the package: there, small, offline and able to sample."""

import torch

from vqvae2.pipeline import Pipeline
from vqvae2.weights import PRETRAINED, pretrained_names

CIFAR10 = PRETRAINED / "cifar10"


def test_the_model_of_the_package_samples_its_classes():
    assert "cifar10" in pretrained_names()
    pipeline = Pipeline.open("cifar10")
    assert len(pipeline.config.class_names) == 10
    samples = pipeline.sample(["horse", "ship"], seed=3)
    assert samples.images.shape == (2, 3, 32, 32)
    assert 0 <= samples.images.min() < samples.images.max() <= 1
    again = pipeline.sample(["horse", "ship"], seed=3)
    assert torch.equal(samples.images, again.images)


def test_its_decoders_differ_and_its_codes_are_stable():
    pipeline = Pipeline.open("cifar10")
    codes = pipeline.encode(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    plain, sharp = (pipeline.decode(codes, decoder=name) for name in ("plain", "sharp"))
    assert not torch.equal(plain, sharp)
    again = pipeline.encode(plain)
    assert (again[1] == codes[1]).float().mean() > 0.5


def test_it_is_small_and_has_a_card():
    size = sum(path.stat().st_size for path in CIFAR10.rglob("*") if path.is_file())
    assert size < 20 * 2**20
    card = (CIFAR10 / "README.md").read_text()
    for word in ("Data", "Recipe", "Figures", "Limits"):
        assert f"**{word}**" in card
