"""Every architecture, and domains of codes on 1, 2 and 3 levels and of pixels."""

from dataclasses import replace

import torch
from torch import Tensor

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import (
    DiagonalBiLSTMConfig,
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    Prior,
    PriorConfig,
    RowLSTMConfig,
    TransformerConfig,
)

CONFIGS: dict[str, PriorConfig] = {
    "plain": GatedPixelCNNConfig(
        channels=8, residual_channels=6, num_layers=5, kernel=3, num_output_blocks=0
    ),
    "attention": GatedPixelCNNConfig(
        channels=8, residual_channels=6, num_layers=4, attention_every=2, num_heads=2
    ),
    "pixelcnn": PixelCNNConfig(channels=8, num_layers=3),
    "row-lstm": RowLSTMConfig(channels=8, state_channels=6, num_layers=2),
    "diagonal-bilstm": DiagonalBiLSTMConfig(channels=8, state_channels=6, num_layers=2),
    "pixelcnnpp": PixelCNNPPConfig(channels=8, num_layers=2, dropout=0.1),
    "pixelsnail": PixelSNAILConfig(
        channels=8, num_blocks=2, num_layers=2, num_heads=2, key_size=3, value_size=5
    ),
    "transformer": TransformerConfig(channels=16, num_layers=2, num_heads=2),
}

NUM_CLASSES = 3

CODES = {
    "1-level": Domain(grid=CodeGrid(7, 4, 8), num_classes=NUM_CLASSES),
    "2-levels": Domain(
        grid=CodeGrid(7, 4, 8), coarser=(CodeGrid(5, 2, 4),), num_classes=NUM_CLASSES
    ),
    "3-levels": Domain(
        grid=CodeGrid(7, 4, 16),
        coarser=(CodeGrid(4, 1, 4), CodeGrid(6, 2, 8)),
        num_classes=NUM_CLASSES,
    ),
}

RGB = Domain(grid=CodeGrid(6, 4, 8), num_classes=NUM_CLASSES, channels=3, ordered=True)

PIXELS = {
    "softmax": RGB,
    "grey-softmax": replace(RGB, channels=1),
    "mixture": replace(RGB, num_mixtures=3),
    "grey-mixture": replace(RGB, channels=1, num_mixtures=3),
}

DOMAINS = CODES | PIXELS


def make(domain: str, architecture: str, dtype: torch.dtype = torch.float64) -> Prior:
    """A small prior in eval mode, with the same weights on every call."""
    torch.manual_seed(0)
    return Prior(CONFIGS[architecture], DOMAINS[domain]).to(dtype).eval()


def inputs(prior: Prior, batch: int = 3) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Random values, labels and coarser codes of the prior's domain."""
    generator, domain = torch.Generator().manual_seed(1), prior.domain
    grids = [(domain.grid.num_codes, domain.shape)]
    grids += [(grid.num_codes, grid.shape) for grid in domain.coarser]
    values, *coarser = [
        torch.randint(0, num_codes, (batch, *shape), generator=generator)
        for num_codes, shape in grids
    ]
    labels = torch.randint(0, NUM_CLASSES, (batch,), generator=generator)
    return values, labels, coarser
