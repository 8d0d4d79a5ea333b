"""A decoder-only Transformer over the raster order, with rotary embeddings in two dimensions.

Blocks are those of GPT-2 with the norm first (RMSNorm, arXiv 1910.07467). Half of the channels of
a head are rotated by the row of a position and half by its column (rotary embeddings, arXiv
2104.09864), so that attention depends on the distance in both directions. The input at a position
is the sum of the value before it and the context at it.

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions, `size` channels of a head.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, require_ranges
from vqvae2.nn.attention import (
    KeyValueCache,
    Prefix,
    attend,
    new_mask,
    num_keys,
    require_heads,
    split_heads,
)
from vqvae2.nn.causal import RasterPosition, context_at, shift_raster
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block
from vqvae2.priors.network import Network, PriorConfig


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(PriorConfig):
    """The architecture of a Transformer.

    Arguments:
        num_layers: blocks.
        num_heads: heads per attention; C / num_heads must be a multiple of 4.
        mlp_ratio: hidden channels of a block's two-layer perceptron, divided by C.
        dropout: on the output of each attention and perceptron.
    """

    kind: Literal["transformer"] = "transformer"
    num_layers: AtLeast1 = 8
    num_heads: AtLeast1 = 4
    mlp_ratio: AtLeast1 = 4

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)
        require_heads(self.channels, self.num_heads)
        if self.channels // self.num_heads % 4:
            raise ValueError(
                f"A head must have a multiple of 4 channels, got {self.channels} channels in "
                f"{self.num_heads} heads; use {4 * self.num_heads} channels or a multiple."
            )

    def network(self, grid: tuple[int, int]) -> "Transformer":
        """The network for maps of grid (H, W)."""
        return Transformer(self, grid)


class TransformerBlock(Block):
    """Attention, then a two-layer perceptron, each with a residual connection."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.num_heads = config.channels, config.num_heads
        self.attention_norm = nn.RMSNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width)
        self.widen = nn.Linear(width, config.mlp_ratio * width)
        self.narrow = nn.Linear(config.mlp_ratio * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, rotations: Tensor) -> Tensor:
        """Maps rows (B, N, C) to the same shape; rotations (N, size / 2, 2)."""
        mixed = attend(*self._heads(x, rotations))
        x = x + self.dropout(self.attended(mixed.transpose(1, 2).flatten(2)))
        return x + self.dropout(self._mlp(x))

    def new_cache(self, batch: int, num_positions: int) -> KeyValueCache:
        """An empty cache for maps of N positions."""
        weight = self.attended.weight
        size = weight.shape[0] // self.num_heads
        return KeyValueCache.new(weight, (batch, self.num_heads, num_positions), (size, size))

    def step(self, cache: KeyValueCache, x: Tensor, rotations: Tensor, prefix: Prefix) -> Tensor:
        """One position, (B, C) to (B, C); rotations (1, size / 2, 2)."""
        mixed = cache.attend(*self._heads(x[:, None], rotations), prefix)
        x = x + self.attended(mixed.flatten(1))
        return x + self._mlp(x)

    def _mlp(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.widen(self.norm(x))))

    def _heads(self, x: Tensor, rotations: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, C)."""
        projected = self.queries_keys_values(self.attention_norm(x))
        queries, keys, values = split_heads(projected, self.num_heads)
        return rotate(queries, rotations), rotate(keys, rotations), values


@dataclass
class TransformerCache:
    """The state of a `Transformer` between two steps.

    Arguments:
        blocks: keys and values of each block.
        mask: of the attentions, (N,).
    """

    blocks: list[KeyValueCache]
    mask: Tensor


class Transformer(Network[TransformerCache]):
    """The network of a `TransformerConfig`, for maps of grid (H, W)."""

    rotations: Tensor

    def __init__(self, config: TransformerConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.blocks = Modules(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.channels)
        rotations = rotary_embedding(grid, config.channels // config.num_heads)
        self.register_buffer("rotations", rotations, persistent=False)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x = (shift_raster(values) + context).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, self.rotations)
        return self.norm(x).transpose(1, 2).unflatten(2, self.grid)

    def new_cache(self, batch: int) -> TransformerCache:
        """The cache before the first position."""
        length = len(self.rotations)
        return TransformerCache(
            blocks=[block.new_cache(batch, length) for block in self.blocks],
            mask=new_mask(self.norm.weight, length),
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """The number of keys that are read."""
        return num_keys(position.index, len(self.rotations))

    def step(
        self,
        cache: TransformerCache,
        previous: Tensor,
        context: Tensor,
        position: RasterPosition,
    ) -> Tensor:
        """Features (B, C) of one position."""
        x = previous + context_at(context, position)
        rotations = self.rotations.index_select(0, position.flat_index)
        prefix = Prefix.at(position, cache.mask)
        for block, state in zip(self.blocks, cache.blocks, strict=True):
            x = block.step(state, x, rotations, prefix)
        return self.norm(x)


def rotary_embedding(grid: tuple[int, int], size: int) -> Tensor:
    """Cosine and sine of the rotation of each pair of a head's channels.

    The first half of the pairs rotates with the row, the second with the column. The fastest pair
    rotates by one radian per position, the slowest by about a hundredth.

    Arguments:
        grid: (H, W).
        size: channels of a head, a multiple of 4.

    Returns:
        (N, size / 2, 2).
    """
    quarter = size // 4
    rates = 100 ** -(torch.arange(quarter) / max(1, quarter))
    rows, columns = (torch.arange(side)[:, None] * rates for side in grid)
    height, width = grid
    by_row = rows[:, None].expand(height, width, quarter)
    by_column = columns[None].expand(height, width, quarter)
    angles = torch.cat([by_row, by_column], dim=2).flatten(0, 1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """Rotates each pair of channels of (B, heads, N, size) by `rotations`, (N, size / 2, 2)."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = rotations.unbind(-1)
    rotated = [even * cosine - odd * sine, even * sine + odd * cosine]
    return torch.stack(rotated, dim=-1).flatten(-2)
