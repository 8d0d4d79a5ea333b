"""PixelSNAIL: blocks of causal convolutions and of attention (arXiv 1712.09763, Sec. 2).

A block is a few gated residual 2x2 convolutions, whose features ask, and an attention, in which
features, inputs and positions answer:

    x + a * sigmoid(b),  (a, b) = conv1x1(elu(conv2x2(elu(x)) + U context))

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.attention import KeyValueCache, attend
from vqvae2.nn.causal import (
    PastConv,
    Place,
    RasterCache,
    RasterConv,
    begin_rows,
    pointwise,
    row_of,
    shift_raster,
)
from vqvae2.priors.network import Network, PriorConfig, require_positive


@dataclass(frozen=True, kw_only=True)
class PixelSNAILConfig(PriorConfig):
    """The architecture; the paper's has 12 blocks of 4 and 256 channels.

    Arguments:
        channels: C.
        num_blocks: blocks, each with an attention.
        num_layers: gated residual layers a block.
        num_heads: of each attention.
        key_size: of a head's keys.
        value_size: of a head's values.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: in each residual layer.
    """

    kind: Literal["pixelsnail"] = "pixelsnail"
    channels: int = 128
    num_blocks: int = 4
    num_layers: int = 4
    num_heads: int = 1
    key_size: int = 16
    value_size: int = 128
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        require_positive(
            channels=self.channels,
            num_blocks=self.num_blocks,
            num_heads=self.num_heads,
            key_size=self.key_size,
            value_size=self.value_size,
        )

    def network(self, grid: tuple[int, int]) -> "PixelSNAIL":
        """The network for maps of grid (H, W)."""
        return PixelSNAIL(self, grid)


@dataclass
class BlockCache:
    """What a block keeps."""

    convs: list[RasterCache]
    past: KeyValueCache


@dataclass
class PixelSNAILCache:
    """State between two steps."""

    place: Place
    context: Tensor
    first: RasterCache
    blocks: list[BlockCache]


class GatedResidual(nn.Module):
    """A gated residual layer around a 2x2 causal convolution."""

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__()
        width = config.channels
        self.conv = RasterConv(width, width, width, above=1, left=1, right=0)
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


class SnailBlock(nn.Module):
    """Gated residual layers, an attention, and a gated layer that joins the two."""

    def __init__(self, config: PixelSNAILConfig) -> None:
        super().__init__()
        width, heads = config.channels, config.num_heads
        self.num_heads, self.sizes = heads, (config.key_size, config.value_size)
        self.layers = nn.ModuleList(GatedResidual(config) for _ in range(config.num_layers))
        # The two more channels are where a position lies.
        self.queries = nn.Linear(width + 2, heads * config.key_size)
        self.keys_values = nn.Linear(2 * width + 2, heads * sum(self.sizes))
        self.attended = nn.Linear(heads * config.value_size, width)
        self.own = nn.Linear(width, width)
        self.dropout = nn.Dropout(config.dropout)
        self.join = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, inputs: Tensor, places: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape.

        Arguments:
            inputs: (B, N, C), the embedded values before each position.
            places: (B, N, 2).
        """
        for layer in self.layers:
            x = layer(x, context)
        rows = x.flatten(2).transpose(1, 2)
        mixed = attend(*self._heads(rows, inputs, places))
        gathered = self._join(rows, mixed.transpose(1, 2).flatten(2))
        out: Tensor = gathered.transpose(1, 2).unflatten(2, x.shape[2:])
        return out

    def new_cache(self, batch: int, grid: tuple[int, int]) -> BlockCache:
        """The state before the first position."""
        shape = (batch, self.num_heads, grid[0] * grid[1])
        convs = [layer.conv.new_cache(batch, grid[1]) for layer in self.gated()]
        return BlockCache(convs, KeyValueCache.new(self.own.weight, shape, self.sizes))

    def step(
        self, cache: BlockCache, x: Tensor, inputs: Tensor, here: Tensor, place: Place
    ) -> Tensor:
        """One position, (B, C) to (B, C); `inputs` (B, C), `here` (B, 2)."""
        for layer, state in zip(self.gated(), cache.convs, strict=True):
            x = layer.step(state, x, place.column)
        heads = self._heads(x[:, None], inputs[:, None], here[:, None])
        mixed = cache.past.attend(*heads, place)
        return self._join(x, mixed.flatten(1))

    def gated(self) -> list[GatedResidual]:
        """The residual layers."""
        return cast(list[GatedResidual], list(self.layers))

    def _heads(self, x: Tensor, inputs: Tensor, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, ...)."""
        split = (self.num_heads, -1)
        queries = self.queries(torch.cat([x, places], dim=2)).unflatten(2, split)
        both = self.keys_values(torch.cat([inputs, x, places], dim=2)).unflatten(2, split)
        keys, values = both.transpose(1, 2).split(self.sizes, dim=3)
        return queries.transpose(1, 2), keys, values

    def _join(self, x: Tensor, attended: Tensor) -> Tensor:
        """x (..., C) with a gated layer of itself and what it attended to."""
        h = F.elu(self.own(F.elu(x)) + self.attended(F.elu(attended)))
        return x + F.glu(self.join(self.dropout(h)), dim=-1)


class PixelSNAIL(Network):
    """See the file's text."""

    places: Tensor
    FIRST_KERNEL = 3

    def __init__(self, config: PixelSNAILConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.first = PastConv(config.channels, config.channels, self.FIRST_KERNEL)
        self.blocks = nn.ModuleList(SnailBlock(config) for _ in range(config.num_blocks))
        rows, columns = (torch.linspace(-0.5, 0.5, side) for side in grid)
        places = torch.cartesian_prod(rows, columns)
        self.register_buffer("places", places, persistent=False)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        inputs = shift_raster(values).flatten(2).transpose(1, 2)
        places = self.places.expand(len(values), -1, -1)
        x: Tensor = self.first(values)
        for block in self.blocks:
            x = block(x, inputs, places, context)
        return F.elu(x)

    def new_cache(self, context: Tensor, batch: int) -> PixelSNAILCache:
        """The state before the first position."""
        return PixelSNAILCache(
            place=Place.start(self.grid[1], context.device),
            context=context,
            first=self.first.new_cache(batch, self.grid[1]),
            blocks=[block.new_cache(batch, self.grid) for block in self._blocks()],
        )

    def phase(self, cache: PixelSNAILCache) -> Hashable:
        """Does a row begin?"""
        return cache.place.begins_row

    def step(self, cache: PixelSNAILCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        if place.begins_row:
            context = row_of(cache.context, place.row)
            for block, state in zip(self._blocks(), cache.blocks, strict=True):
                begin_rows([layer.conv for layer in block.gated()], state.convs, context)
        here = self.places.index_select(0, place.position).expand(len(before), -1)
        x = self.first.step(cache.first, before, place)
        for block, state in zip(self._blocks(), cache.blocks, strict=True):
            x = block.step(state, x, before, here, place)
        place.advance()
        return F.elu(x)

    def _blocks(self) -> list[SnailBlock]:
        return cast(list[SnailBlock], list(self.blocks))
