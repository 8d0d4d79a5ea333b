"""Every architecture on codes of 1, 2 and 3 levels and on pixels."""

from dataclasses import replace

import torch

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import (
    DiagonalBiLSTMConfig,
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    Prior,
    RowLSTMConfig,
    TransformerConfig,
)

CONFIGS = {
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


CODES = {
    "1-level": Domain(grid=CodeGrid(7, 4, 8), num_classes=3),
    "2-levels": Domain(grid=CodeGrid(7, 4, 8), coarser=(CodeGrid(5, 2, 4),), num_classes=3),
    "3-levels": Domain(
        grid=CodeGrid(7, 4, 16), coarser=(CodeGrid(4, 1, 4), CodeGrid(6, 2, 8)), num_classes=3
    ),
}


COLOURS = Domain(grid=CodeGrid(6, 4, 8), num_classes=3, channels=3, ordered=True)


PIXELS = {
    "softmax": COLOURS,
    "grey-softmax": replace(COLOURS, channels=1),
    "mixture": replace(COLOURS, num_mixtures=3),
    "grey-mixture": replace(COLOURS, channels=1, num_mixtures=3),
}


DOMAINS = CODES | PIXELS


def make(context: str, name: str, dtype: torch.dtype = torch.float64) -> Prior:
    torch.manual_seed(0)
    return Prior(CONFIGS[name], DOMAINS[context]).to(dtype).eval()


def inputs(prior: Prior, batch: int = 3) -> tuple:
    generator, domain = torch.Generator().manual_seed(1), prior.domain
    levels = (
        (domain.grid.num_codes, domain.shape),
        *((g.num_codes, g.shape) for g in domain.coarser),
    )
    values, *coarser = [
        torch.randint(0, k, (batch, *shape), generator=generator) for k, shape in levels
    ]
    labels = torch.randint(0, 3, (batch,), generator=generator)
    return values, labels, coarser
