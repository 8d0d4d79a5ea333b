"""Pipelines of every kind with random weights, which sample in a moment."""

from dataclasses import replace

import torch
from builders import small_config, synthetic_images

from vqvae2.autoencoder import VQVAE, Pixels, PixelsConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoder, SharpDecoderConfig
from vqvae2.code_grid import CodeGrid
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import SamplingConfig

SIZE = 16
PRIOR = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)


def codes_pipeline(
    factors: tuple[int, ...] = (2, 4),
    classes: tuple[str, ...] = ("cat", "dog"),
    channels: int = 3,
    sharp: bool = False,
    priors: bool = True,
) -> Pipeline:
    """An autoencoder whose codebooks have started from images, and its priors."""
    torch.manual_seed(0)
    config = replace(small_config(factors), image_channels=channels)
    autoencoder = VQVAE(config).eval()
    images = synthetic_images(32)[:, :channels]
    autoencoder.start_codebooks(images, torch.Generator().manual_seed(0))
    grids = autoencoder.config.grids(SIZE, SIZE)
    sampling = (SamplingConfig(),) * len(grids)
    pipeline = Pipeline(
        autoencoder, PipelineConfig(image_size=SIZE, class_names=classes, sampling=sampling)
    )
    if priors:
        pipeline.priors = [prior(grids, level, len(classes)) for level in range(len(grids))]
    if sharp:
        size = SharpDecoderConfig(channels=16, residual_channels=8, num_residual_blocks=1)
        pipeline.sharp_decoder = SharpDecoder(size, autoencoder.config).eval()
    return pipeline


def prior(grids: list[CodeGrid], level: int, classes: int) -> Prior:
    domain = Domain(
        grid=grids[level],
        coarser=tuple(grids[:level]),
        num_classes=max(1, classes),
        null_label=classes > 1,
    )
    return Prior(PRIOR, domain).eval()


def pixel_pipeline(size: int = 8) -> Pipeline:
    """A prior on pixels."""
    torch.manual_seed(0)
    domain = Domain(grid=CodeGrid(256, size, size), num_classes=2, channels=3, ordered=True)
    config = PipelineConfig(image_size=size, class_names=("cat", "dog"))
    return Pipeline(Pixels(PixelsConfig()), config, [Prior(PRIOR, domain).eval()])


KINDS = {
    "two levels": codes_pipeline,
    "one level": lambda: codes_pipeline((4,)),
    "three levels": lambda: codes_pipeline((2, 2, 2)),
    "no classes": lambda: codes_pipeline(classes=()),
    "1,000 classes": lambda: codes_pipeline(classes=tuple(f"class {i}" for i in range(1000))),
    "one channel": lambda: codes_pipeline(channels=1),
    "sharp decoder": lambda: codes_pipeline(sharp=True),
    "pixels": pixel_pipeline,
    "no priors": lambda: codes_pipeline(priors=False),
}
"""One of each kind, by name."""
