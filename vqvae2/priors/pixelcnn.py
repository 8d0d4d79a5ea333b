"""PixelCNN: masked convolutions in residual blocks (PixelRNN, arXiv 1601.06759, Sec. 3.4).

A first layer of "mask A" sees the past alone, then come blocks of "mask B":

    x + conv1x1(relu(masked conv(relu(conv1x1(relu(x))))))

Each masked layer reaches as many columns to the right as rows up, so what lies flatter than that
to the upper right is never seen: the blind spot that Gated PixelCNN was made to remove.

Legend: `B` batch, `C` channels, `H W` grid.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import (
    PastConv,
    Place,
    RasterCache,
    RasterConv,
    begin_rows,
    pointwise,
    row_of,
)
from vqvae2.priors.network import Network


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig:
    """The architecture.

    Arguments:
        channels: C, "2h" of the paper; the masked convolutions have half of them.
        num_layers: residual blocks.
        kernel: side of their masked filters, odd; the first layer's is 7.
        num_output_layers: 1x1 convolutions before the head.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: before each block's last layer.
        num_mixtures: logistics a pixel; 0 for a softmax.
    """

    kind: Literal["pixelcnn"] = "pixelcnn"
    channels: int = 128
    num_layers: int = 12
    kernel: int = 3
    num_output_layers: int = 2
    num_conditioning_blocks: int = 4
    dropout: float = 0.1
    num_mixtures: int = 0


@dataclass
class PixelCNNCache:
    """State between two steps."""

    place: Place
    context: Tensor
    first: RasterCache
    blocks: list[RasterCache]


class MaskedBlock(nn.Module):
    """A residual block around one masked convolution."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        width, half, side = config.channels, config.channels // 2, config.kernel // 2
        self.narrow = nn.Conv2d(width, half, 1)
        self.conv = RasterConv(half, half, width, above=side, left=side, right=side)
        self.widen = nn.Conv2d(half, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self.conv(F.relu(self.narrow(F.relu(x))), context)
        return x + cast(Tensor, self.widen(self.dropout(F.relu(h))))

    def step(self, cache: RasterCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        h = self.conv.step(cache, F.relu(pointwise(self.narrow, F.relu(x))), column)
        return x + pointwise(self.widen, F.relu(h))


class PixelCNN(Network):
    """See the file's text."""

    FIRST_KERNEL = 7

    def __init__(self, config: PixelCNNConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.first = PastConv(config.channels, config.channels, self.FIRST_KERNEL)
        self.blocks = nn.ModuleList(MaskedBlock(config) for _ in range(config.num_layers))
        self.output = nn.ModuleList(
            nn.Conv2d(config.channels, config.channels, 1) for _ in range(config.num_output_layers)
        )

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x: Tensor = self.first(values)
        for block in self.blocks:
            x = block(x, context)
        for layer in self.output:
            x = layer(F.relu(x))
        return x

    def new_cache(self, context: Tensor, batch: int) -> PixelCNNCache:
        """The state before the first position."""
        width = self.grid[1]
        return PixelCNNCache(
            place=Place.start(width, context.device),
            context=context,
            first=self.first.new_cache(batch, width),
            blocks=[block.conv.new_cache(batch, width) for block in self._blocks()],
        )

    def phase(self, cache: PixelCNNCache) -> Hashable:
        """Does a row begin?"""
        return cache.place.begins_row

    def step(self, cache: PixelCNNCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        if place.begins_row:
            convs = [block.conv for block in self._blocks()]
            begin_rows(convs, cache.blocks, row_of(cache.context, place.row))
        x = self.first.step(cache.first, before, place)
        for block, state in zip(self._blocks(), cache.blocks, strict=True):
            x = block.step(state, x, place.column)
        for layer in self.output:
            x = pointwise(cast(nn.Conv2d, layer), F.relu(x))
        place.advance()
        return x

    def _blocks(self) -> list[MaskedBlock]:
        return cast(list[MaskedBlock], list(self.blocks))
