"""A trained small run, an evaluation of untrained models, and feature extractors."""

from dataclasses import replace

import pytest
import torch
from builders import save_network, small_autoencoder
from small_runs import small_run, train

from vqvae2.data.config import DataConfig
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.metrics.extractors import Extractor, torchscript
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> RunFolder:
    """A run of two levels and 12 classes, trained for a few steps."""
    run = small_run()
    run = replace(run, data=replace(run.data, synthetic_images=240))
    return train(tmp_path_factory.mktemp("evaluated") / "run", run)


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> Evaluation:
    """Of untrained models of two levels and 12 classes, and 800 images."""
    data = DataConfig(size=16, synthetic_images=800, validation_fraction=0.3)
    config = replace(small_run(), data=data)
    torch.manual_seed(0)
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    grids = autoencoder.config.grids(16, 16)
    prior = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    priors = [
        Prior(prior, Domain(grid=grid, coarser=tuple(grids[:level]), num_classes=12)).eval()
        for level, grid in enumerate(grids)
    ]
    names = tuple(f"class {number}" for number in range(12))
    settings = PipelineConfig(
        image_size=16, class_names=names, sampling=(SamplingConfig(), SamplingConfig())
    )
    pipeline = Pipeline(autoencoder, settings, priors)
    return Evaluation(RunFolder(tmp_path_factory.mktemp("untrained")), config, pipeline)


@pytest.fixture(scope="session")
def extractor(tmp_path_factory) -> Extractor:
    """An untrained network of 12 classes."""
    path = tmp_path_factory.mktemp("network") / "judge.pt"
    save_network(path, outputs=12)
    return torchscript(path, "Judge")
