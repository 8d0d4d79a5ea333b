"""A decoder-only Transformer over the raster order, with rotary positions in two dimensions.

Blocks as in GPT-2 with the norm first (RMSNorm, arXiv 1910.07467); half of a head's channels turn
with the row and half with the column (rotary positions, arXiv 2104.09864), so that attention knows
how far away, in each direction, a position lies. A position's input is the value before it and the
context at it.

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.attention import KeyValueCache, attend, require_heads
from vqvae2.nn.causal import Place, row_of, shift_raster
from vqvae2.priors.network import Network, PriorConfig, require_positive


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(PriorConfig):
    """The architecture.

    Arguments:
        channels: C.
        num_layers: blocks.
        num_heads: of each attention; C / heads must be a multiple of 4.
        widening: hidden channels of a block's two-layer network, in C.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: on what each half of a block adds.
    """

    kind: Literal["transformer"] = "transformer"
    channels: int = 128
    num_layers: int = 8
    num_heads: int = 4
    widening: int = 4
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses heads that cannot be turned in two dimensions."""
        require_positive(num_layers=self.num_layers, widening=self.widening)
        require_heads(self.channels, self.num_heads)
        if self.channels // self.num_heads % 4:
            raise ValueError(
                f"A head must have a multiple of 4 channels, got {self.channels} channels in "
                f"{self.num_heads} heads; use {4 * self.num_heads} channels or a multiple."
            )

    def network(self, grid: tuple[int, int]) -> "Transformer":
        """The network for maps of grid (H, W)."""
        return Transformer(self, grid)


@dataclass
class TransformerCache:
    """State between two steps."""

    place: Place
    context: Tensor
    layers: list[KeyValueCache]


class TransformerBlock(nn.Module):
    """Attention, then a network of two layers, each added to what comes in."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width, self.num_heads = config.channels, config.num_heads
        self.attention_norm = nn.RMSNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.norm = nn.RMSNorm(width)
        self.widen = nn.Linear(width, config.widening * width)
        self.narrow = nn.Linear(config.widening * width, width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, turns: Tensor) -> Tensor:
        """Rows (B, N, C) to the same shape; `turns` (N, size / 2, 2)."""
        mixed = attend(*self._heads(x, turns))
        x = x + self.dropout(self.attended(mixed.transpose(1, 2).flatten(2)))
        return x + cast(Tensor, self.dropout(self._local(x)))

    def new_cache(self, batch: int, num_positions: int) -> KeyValueCache:
        """An empty cache for maps of N positions."""
        weight = self.attended.weight
        size = weight.shape[0] // self.num_heads
        return KeyValueCache.new(weight, (batch, self.num_heads, num_positions), (size, size))

    def step(self, cache: KeyValueCache, x: Tensor, turns: Tensor, place: Place) -> Tensor:
        """One position, (B, C) to (B, C); `turns` (1, size / 2, 2)."""
        mixed = cache.attend(*self._heads(x[:, None], turns), place)
        x = x + self.attended(mixed.flatten(1))
        return x + self._local(x)

    def _local(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.narrow(F.gelu(self.widen(self.norm(x)))))

    def _heads(self, x: Tensor, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, C)."""
        split = self.queries_keys_values(self.attention_norm(x))
        split = split.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = split.unbind(0)
        return turn(queries, turns), turn(keys, turns), values


class Transformer(Network):
    """See the file's text."""

    turns: Tensor

    def __init__(self, config: TransformerConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        self.norm = nn.RMSNorm(config.channels)
        turns = rotary_turns(grid, config.channels // config.num_heads)
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x = (shift_raster(values) + context).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, self.turns)
        out: Tensor = self.norm(x).transpose(1, 2).unflatten(2, self.grid)
        return out

    def new_cache(self, context: Tensor, batch: int) -> TransformerCache:
        """The state before the first position."""
        height, width = self.grid
        return TransformerCache(
            place=Place.start(width, context.device),
            context=context.expand(-1, -1, -1, width),
            layers=[block.new_cache(batch, height * width) for block in self._blocks()],
        )

    def phase(self, cache: TransformerCache) -> Hashable:
        """All steps are alike."""
        return None

    def step(self, cache: TransformerCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        context = row_of(cache.context, place.row).index_select(3, place.column)
        x = before + context[:, :, 0, 0]
        turns = self.turns.index_select(0, place.position)
        for block, state in zip(self._blocks(), cache.layers, strict=True):
            x = block.step(state, x, turns, place)
        place.advance()
        return cast(Tensor, self.norm(x))

    def _blocks(self) -> list[TransformerBlock]:
        return cast(list[TransformerBlock], list(self.blocks))


def rotary_turns(grid: tuple[int, int], size: int) -> Tensor:
    """Cosine and sine, (N, size / 2, 2), by which each pair of a head's channels is turned.

    The first half of the pairs turns with the row, the second with the column; the fastest
    pair turns by a radian a position, the slowest by not much more than a hundredth.
    """
    quarter = size // 4
    rates = 100 ** -(torch.arange(quarter) / max(1, quarter))
    rows, columns = (torch.arange(side)[:, None] * rates for side in grid)
    height, width = grid
    by_row = rows[:, None].expand(height, width, quarter)
    by_column = columns[None].expand(height, width, quarter)
    angles = torch.cat([by_row, by_column], dim=2).flatten(0, 1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1)


def turn(x: Tensor, turns: Tensor) -> Tensor:
    """Turns each pair of channels of (B, heads, N, size) by the angles of its position."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = turns.unbind(-1)
    turned = [even * cosine - odd * sine, even * sine + odd * cosine]
    return torch.stack(turned, dim=-1).flatten(-2)
