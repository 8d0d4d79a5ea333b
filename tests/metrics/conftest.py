"""A small feature extractor and two sets of images for all metrics of features."""

import pytest
import torch
from builders import save_network

from vqvae2.data.synthetic import render
from vqvae2.metrics.extractors import Extractor, stream, torchscript


@pytest.fixture(scope="session")
def extractor(tmp_path_factory) -> Extractor:
    path = tmp_path_factory.mktemp("network") / "small.pt"
    save_network(path)
    return torchscript(path, "Small")


@pytest.fixture(scope="session")
def images() -> list[torch.Tensor]:
    """Two sets of the built-in images, the second darker."""
    first, second = (render(torch.arange(300), 24, seed=seed).images for seed in (1, 2))
    return [first, (second * 0.8).to(torch.uint8)]


@pytest.fixture(scope="session")
def features(extractor, images) -> list[torch.Tensor]:
    """The features of both sets, (300, 24) float64."""
    return [torch.cat(list(stream(extractor.features, part.split(64)))) for part in images]
