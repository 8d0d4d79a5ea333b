"""An untrained pipeline of two levels and two classes, and a folder of images."""

from pathlib import Path

import pytest
import torch
from builders import make_folder, small_autoencoder

from vqvae2.code_grid import CodeGrid
from vqvae2.data.images import ImageDataset, load_images
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling.config import SamplingConfig

GRIDS = [CodeGrid(24, 2, 2), CodeGrid(24, 4, 4)]
SAMPLING = (SamplingConfig(temperature=0.9), SamplingConfig())


def make_pipeline(class_names: tuple[str, ...] = ("class0", "class1")) -> Pipeline:
    prior = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    torch.manual_seed(0)
    domains = [
        Domain(grid=grid, coarser=tuple(GRIDS[:level]), num_classes=max(1, len(class_names)))
        for level, grid in enumerate(GRIDS)
    ]
    return Pipeline(
        small_autoencoder((2, 4), dtype=torch.float32),
        PipelineConfig(image_size=16, class_names=class_names, sampling=SAMPLING),
        [Prior(prior, domain).eval() for domain in domains],
    )


@pytest.fixture(scope="session")
def pipeline() -> Pipeline:
    return make_pipeline()


@pytest.fixture(scope="session")
def pipeline_without_classes() -> Pipeline:
    return make_pipeline(())


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    """Six images in the sub-folders class0 and class1."""
    return load_images(make_folder(tmp_path / "images", count=6), 16)
