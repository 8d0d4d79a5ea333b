"""The prior of VQ-VAE-2: a gated PixelCNN with self-attention (Sec. 3.2; arXiv 1606.05328).

A vertical stack sees the rows above a position, a horizontal stack its own row to the left and,
through a link, the vertical stack. Every gate is biased by the context, label and coarser codes:

    y = tanh(a + U context) * sigmoid(b + V context)

Every few layers the horizontal stack attends to its whole past. Residual 1x1 blocks and a ReLU
follow the last layer.

Legend: `B` batch, `C` channels, `G` residual channels (width of a gate), `H W` grid, `N = H W`,
`R` rows and `L` columns of a window, `layers` their number.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.attention import CausalAttention, KeyValueCache, require_heads
from vqvae2.nn.causal import (
    HorizontalConv,
    Place,
    VerticalConv,
    pointwise,
    push,
    row_of,
    shift_down,
    shift_raster,
)
from vqvae2.nn.residual import ResidualStack
from vqvae2.priors.network import Network, PriorConfig, require_odd, require_positive


@dataclass(frozen=True, kw_only=True)
class GatedPixelCNNConfig(PriorConfig):
    """The architecture; the defaults are a small prior for small grids.

    Arguments:
        channels: C, "hidden units" of the paper.
        residual_channels: G, "residual units".
        num_layers: gated layers.
        kernel: side of the unmasked filter, odd.
        attention_every: a self-attention after every so many layers; 0 for none.
        num_heads: of each attention.
        num_output_blocks: residual 1x1 blocks before the head.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: after each gate, in the stacks, and on the attention logits.
    """

    kind: Literal["gated-pixelcnn"] = "gated-pixelcnn"
    channels: int = 128
    residual_channels: int = 128
    num_layers: int = 8
    kernel: int = 5
    attention_every: int = 0
    num_heads: int = 4
    num_output_blocks: int = 2
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        require_odd(self.kernel)
        require_positive(
            channels=self.channels,
            residual_channels=self.residual_channels,
            num_layers=self.num_layers,
        )
        if self.attention_every:
            require_heads(self.channels, self.num_heads)

    def network(self, grid: tuple[int, int]) -> "GatedPixelCNN":
        """The network for maps of grid (H, W)."""
        return GatedPixelCNN(self, grid)


@dataclass
class GatedPixelCNNCache:
    """State between two steps; what all layers keep lies in one tensor, moved at once.

    Arguments:
        place: the next position.
        context: (B, C, H or 1, W or 1).
        above: (B, C, 1, W), the embedded values of the row before, then of this row as they come.
        rows: a layer's inputs to the vertical stack, (B, C, R, W).
        columns: the layers' inputs to the horizontal stack, (layers, B, L, C).
        biases: what the layers' horizontal gates get from the row, (layers, B, W, 2G).
        attention: keys and values of each attention.
    """

    place: Place
    context: Tensor
    above: Tensor
    rows: list[Tensor]
    columns: Tensor
    biases: Tensor
    attention: list[KeyValueCache]


class GatedLayer(nn.Module):
    """One layer of both stacks, with or without attention after it."""

    attention: CausalAttention | None

    def __init__(self, config: GatedPixelCNNConfig, attends: bool) -> None:
        super().__init__()
        width, gate = config.channels, config.residual_channels
        seen = (config.kernel + 1) // 2
        self.vertical = VerticalConv(width, 2 * gate, seen, config.kernel)
        self.vertical_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.vertical_out = nn.Conv2d(gate, width, 1)
        self.link = nn.Conv2d(width, 2 * gate, 1)
        self.horizontal = HorizontalConv(width, 2 * gate, seen)
        self.horizontal_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.horizontal_out = nn.Conv2d(gate, width, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.attention = (
            CausalAttention(width, config.num_heads, config.dropout) if attends else None
        )

    def forward(self, v: Tensor, h: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks' maps, (B, C, H, W) each, one layer on."""
        v = self._vertical(v, self.vertical(v), context)
        gates = self.horizontal(h) + self._row_bias(v, context)
        h = h + self.horizontal_out(self.dropout(gate(gates)))
        return v, h if self.attention is None else self.attention(h)

    def step_row(self, rows: Tensor, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack's new row (B, C, 1, W) and the row's bias (B, W, 2G)."""
        push(rows, v, dim=2)
        v = self._vertical(v, self.vertical.step(rows), context)
        return v, self._row_bias(v, context)[:, :, 0].transpose(1, 2)

    def step_column(self, columns: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """The horizontal stack at the new position, (B, C); attention is the caller's."""
        columns[:, -1].copy_(h)
        gates = self.horizontal.step(columns) + bias
        return h + pointwise(self.horizontal_out, gate(gates))

    def _vertical(self, v: Tensor, convolved: Tensor, context: Tensor) -> Tensor:
        gates = convolved + self.vertical_bias(context)
        return v + cast(Tensor, self.vertical_out(self.dropout(gate(gates))))

    def _row_bias(self, v: Tensor, context: Tensor) -> Tensor:
        return cast(Tensor, self.link(v) + self.horizontal_bias(context))


class GatedPixelCNN(Network):
    """See the file's text."""

    def __init__(self, config: GatedPixelCNNConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.grid, self.num_features = config, grid, config.channels
        width, (height, columns) = config.channels, grid
        every = config.attention_every
        self.row_position = nn.Parameter(0.02 * torch.randn(width, height, 1))
        self.column_position = nn.Parameter(0.02 * torch.randn(width, 1, columns))
        self.layers = nn.ModuleList(
            GatedLayer(config, attends=bool(every) and layer % every == 0)
            for layer in range(1, config.num_layers + 1)
        )
        self.output = ResidualStack(
            width, config.residual_channels, config.num_output_blocks, 1, config.dropout
        )

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W); maps may be cut after any row."""
        place = self.row_position[:, : values.shape[2]] + self.column_position
        v, h = shift_down(values) + place, shift_raster(values) + place
        for layer in self.layers:
            v, h = layer(v, h, context)
        return F.relu(self.output(h))

    def new_cache(self, context: Tensor, batch: int) -> GatedPixelCNNCache:
        """The state before the first position."""
        config, (height, width) = self.config, self.grid
        zeros, layers = self.row_position.new_zeros, config.num_layers
        seen, gates = (config.kernel + 1) // 2, 2 * config.residual_channels
        return GatedPixelCNNCache(
            place=Place.start(width, context.device),
            context=context,
            above=zeros(batch, config.channels, 1, width),
            rows=[zeros(batch, config.channels, seen, width) for _ in range(layers)],
            columns=zeros(layers, batch, seen, config.channels),
            biases=zeros(layers, batch, width, gates),
            attention=[
                layer.attention.new_cache(batch, height * width)
                for layer in self._layers()
                if layer.attention is not None
            ],
        )

    def phase(self, cache: GatedPixelCNNCache) -> Hashable:
        """Does a row begin?"""
        return cache.place.begins_row

    def step(self, cache: GatedPixelCNNCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        last = (place.position - 1) % place.width
        cache.above.index_copy_(3, last, before[:, :, None, None])
        if place.begins_row:
            self._begin_row(cache)
        features = self._next_column(cache, before)
        place.advance()
        return features

    def _begin_row(self, cache: GatedPixelCNNCache) -> None:
        """The vertical stack for a whole row, once, and with it all that its columns need."""
        row = cache.place.row
        v = cache.above + self.row_position.index_select(1, row) + self.column_position
        context = row_of(cache.context, row)
        for layer, rows, bias in zip(self._layers(), cache.rows, cache.biases, strict=True):
            v, row_bias = layer.step_row(rows, v, context)
            bias.copy_(row_bias)
        cache.columns.zero_()

    def _next_column(self, cache: GatedPixelCNNCache, before: Tensor) -> Tensor:
        """The horizontal stack at one position; the same operations at every position."""
        place = cache.place
        position = self.row_position.index_select(1, place.row)
        position = position + self.column_position.index_select(2, place.column)
        h = before + position[:, 0, 0]
        biases = cache.biases.index_select(2, place.column)[:, :, 0]
        cache.columns[:, :, :-1] = cache.columns[:, :, 1:].clone()
        attention = iter(cache.attention)
        for layer, columns, bias in zip(self._layers(), cache.columns, biases, strict=True):
            h = layer.step_column(columns, bias, h)
            if layer.attention is not None:
                h = layer.attention.step(next(attention), h, place)
        return F.relu(self.output(h[:, :, None, None])[:, :, 0, 0])

    def _layers(self) -> list[GatedLayer]:
        return cast(list[GatedLayer], list(self.layers))


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second (Eq. 2)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()
