"""PixelSNAIL: blocks of causal convolutions and attention (arXiv 1712.09763, Sec. 2).

A block is a few gated residual 2x2 convolutions, then an attention. Its queries come from the
features, its keys and values from features and inputs, both with the coordinates of the position:

    x + a * sigmoid(b),  (a, b) = conv1x1(elu(conv2x2(elu(x)) + U context))

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast0, AtLeast1, require_ranges
from vqvae2.nn.attention import KeyValueCache, Prefix, attend, new_mask, num_keys
from vqvae2.nn.causal import (
    PastConv,
    RasterCache,
    RasterConv,
    RasterKernel,
    RasterPosition,
    context_row,
    pointwise,
    shift_raster,
)
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block
from vqvae2.priors.network import Network, PriorConfig

FIRST_KERNEL = 3


@dataclass(frozen=True, kw_only=True)
class PixelSNAILConfig(PriorConfig):
    """The architecture of a PixelSNAIL; the paper's has 12 blocks of 4 layers, 256 channels.

    Arguments:
        num_blocks: blocks, each with one attention.
        num_layers: gated residual layers per block.
        num_heads: heads per attention.
        key_size: channels of a key, per head.
        value_size: channels of a value, per head.
        dropout: in each residual layer.
    """

    kind: Literal["pixelsnail"] = "pixelsnail"
    num_blocks: AtLeast1 = 4
    num_layers: AtLeast0 = 4
    num_heads: AtLeast1 = 1
    key_size: AtLeast1 = 16
    value_size: AtLeast1 = 128

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)

    def network(self, grid: tuple[int, int]) -> "PixelSNAIL":
        """The network for maps of grid (H, W)."""
        return PixelSNAIL(self, grid)


@dataclass
class BlockCache:
    """The state of one block between two steps: of its convolutions and of its attention."""

    convs: list[RasterCache]
    attention: KeyValueCache


@dataclass
class PixelSNAILCache:
    """The state of a `PixelSNAIL` between two steps.

    Arguments:
        first: of the first convolution.
        blocks: of each block.
        mask: of the attentions, (N,).
    """

    first: RasterCache
    blocks: list[BlockCache]
    mask: Tensor


class GatedResidual(nn.Module):
    """A gated residual layer around a 2x2 causal convolution."""

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv = RasterConv(width, width, width, RasterKernel(above=1, left=1, right=0))
        self.dropout = nn.Dropout(config.dropout)
        self.out = nn.Conv2d(width, 2 * width, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self.dropout(F.elu(self.conv(F.elu(x), context)))
        return x + F.glu(self.out(h), dim=1)

    def step(self, cache: RasterCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        h = F.elu(self.conv.step(cache, F.elu(x), column))
        return x + F.glu(pointwise(self.out, h), dim=1)


class SnailBlock(Block):
    """Gated residual layers, an attention, and a gated layer that joins the two."""

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__()
        width, heads = config.channels, config.num_heads
        self.num_heads, self.sizes = heads, (config.key_size, config.value_size)
        self.layers = Modules(GatedResidual(config) for _ in range(config.num_layers))
        # The two additional channels are the coordinates of a position.
        self.queries = nn.Linear(width + 2, heads * config.key_size)
        self.keys_values = nn.Linear(2 * width + 2, heads * sum(self.sizes))
        self.attended = nn.Linear(heads * config.value_size, width)
        self.own = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.join = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, inputs: Tensor, coordinates: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape.

        Arguments:
            x: (B, C, H, W).
            inputs: embedded values of the position before each position, (B, N, C).
            coordinates: (B, N, 2).
            context: (B, C, H or 1, W or 1).
        """
        for layer in self.layers:
            x = layer(x, context)
        rows = x.flatten(2).transpose(1, 2)
        mixed = attend(*self._heads(rows, inputs, coordinates))
        joined = self._join(rows, mixed.transpose(1, 2).flatten(2))
        return joined.transpose(1, 2).unflatten(2, x.shape[2:])

    def new_cache(self, batch: int, grid: tuple[int, int]) -> BlockCache:
        """The cache before the first position."""
        shape = (batch, self.num_heads, grid[0] * grid[1])
        convs = [layer.conv.new_cache(batch, grid[1]) for layer in self.layers]
        return BlockCache(convs, KeyValueCache.new(self.own.weight, shape, self.sizes))

    def start_row(self, cache: BlockCache, context: Tensor) -> None:
        """Convolves the rows above, once for all columns; context (B, C, 1, W or 1)."""
        for layer, state in zip(self.layers, cache.convs, strict=True):
            layer.conv.start_row(state, context)

    def step(
        self,
        cache: BlockCache,
        x: Tensor,
        inputs: Tensor,
        coordinates: Tensor,
        position: RasterPosition,
        prefix: Prefix,
    ) -> Tensor:
        """One position, (B, C) to (B, C), with inputs (B, C) and coordinates (B, 2)."""
        for layer, state in zip(self.layers, cache.convs, strict=True):
            x = layer.step(state, x, position.column)
        heads = self._heads(x[:, None], inputs[:, None], coordinates[:, None])
        mixed = cache.attention.attend(*heads, prefix)
        return self._join(x, mixed.flatten(1))

    def _heads(
        self, x: Tensor, inputs: Tensor, coordinates: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, ...)."""
        split = (self.num_heads, -1)
        queries = self.queries(torch.cat([x, coordinates], dim=2)).unflatten(2, split)
        both = self.keys_values(torch.cat([inputs, x, coordinates], dim=2)).unflatten(2, split)
        keys, values = both.transpose(1, 2).split(self.sizes, dim=3)
        return queries.transpose(1, 2), keys, values

    def _join(self, x: Tensor, attended: Tensor) -> Tensor:
        """Adds a gated layer of features (..., C) and attention (..., heads x size) to x."""
        h = F.elu(self.own(F.elu(x)) + self.attended(F.elu(attended)))
        return x + F.glu(self.join(self.dropout(h)), dim=-1)


class PixelSNAIL(Network[PixelSNAILCache]):
    """The network of a `PixelSNAILConfig`, for maps of grid (H, W)."""

    coordinates: Tensor

    def __init__(self, config: PixelSNAILConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.first = PastConv(config.channels, config.channels, FIRST_KERNEL)
        self.blocks = Modules(SnailBlock(config) for _ in range(config.num_blocks))
        rows, columns = (torch.linspace(-0.5, 0.5, side) for side in grid)
        coordinates = torch.cartesian_prod(rows, columns)
        self.register_buffer("coordinates", coordinates, persistent=False)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        inputs = shift_raster(values).flatten(2).transpose(1, 2)
        coordinates = self.coordinates.expand(len(values), -1, -1)
        x: Tensor = self.first(values)
        for block in self.blocks:
            x = block(x, inputs, coordinates, context)
        return F.elu(x)

    def new_cache(self, batch: int) -> PixelSNAILCache:
        """The cache before the first position."""
        return PixelSNAILCache(
            first=self.first.new_cache(batch, self.grid[1]),
            blocks=[block.new_cache(batch, self.grid) for block in self.blocks],
            mask=new_mask(self.coordinates, len(self.coordinates)),
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """Whether a row starts."""
        return position.starts_row, num_keys(position.index, len(self.coordinates))

    def step(
        self, cache: PixelSNAILCache, previous: Tensor, context: Tensor, position: RasterPosition
    ) -> Tensor:
        """Features (B, C) of one position."""
        if position.starts_row:
            row = context_row(context, position.row)
            for block, state in zip(self.blocks, cache.blocks, strict=True):
                block.start_row(state, row)
        coordinates = self.coordinates.index_select(0, position.flat_index)
        coordinates = coordinates.expand(len(previous), -1)
        x = self.first.step(cache.first, previous, position)
        prefix = Prefix.at(position, cache.mask)
        for block, state in zip(self.blocks, cache.blocks, strict=True):
            x = block.step(state, x, previous, coordinates, position, prefix)
        return F.elu(x)
