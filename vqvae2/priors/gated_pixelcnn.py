"""The prior of VQ-VAE-2: a gated PixelCNN with self-attention (Sec. 3.2; arXiv 1606.05328).

The vertical stack covers the rows above a position. The horizontal stack covers its own row to the
left and receives the vertical stack through a 1x1 convolution (`link`). Every gate is biased by
the context, which embeds the label and the coarser codes:

    y = tanh(a + U context) * sigmoid(b + V context)

Every few layers the horizontal stack attends to the complete past. Residual 1x1 blocks and a ReLU
follow the last layer.

Legend: `B` batch, `C` channels, `G` residual channels (width of a gate), `H W` grid, `N = H W`,
`R` rows and `L` columns of a window, `layers` number of layers.
"""

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import require_minimum
from vqvae2.nn.attention import (
    CausalAttention,
    KeyValueCache,
    Prefix,
    num_keys,
    require_heads,
)
from vqvae2.nn.causal import (
    HorizontalConv,
    RasterPosition,
    VerticalConv,
    context_row,
    pointwise,
    push,
    shift_down,
    shift_raster,
)
from vqvae2.nn.modules import Modules
from vqvae2.nn.residual import ResidualStack
from vqvae2.priors.network import Network, PriorConfig, require_odd


@dataclass(frozen=True, kw_only=True)
class GatedPixelCNNConfig(PriorConfig):
    """The architecture of a gated PixelCNN; the defaults are a small prior for small grids.

    Arguments:
        channels: C, "hidden units" in the paper.
        residual_channels: G, "residual units" in the paper.
        num_layers: gated layers.
        kernel: side of the unmasked filter, odd.
        attention_every: layers between two self-attentions; 0 for no attention.
        num_heads: heads per attention.
        num_output_blocks: residual 1x1 blocks before the head.
        dropout: after each gate, in the residual stacks, and on the attention logits.
    """

    kind: Literal["gated-pixelcnn"] = "gated-pixelcnn"
    residual_channels: int = 128
    num_layers: int = 8
    kernel: int = 5
    attention_every: int = 0
    num_heads: int = 4
    num_output_blocks: int = 2

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_odd(self.kernel)
        require_minimum("A prior's", self, channels=1, residual_channels=1, num_layers=1)
        if self.attention_every:
            require_heads(self.channels, self.num_heads)

    def network(self, grid: tuple[int, int]) -> "GatedPixelCNN":
        """The network for maps of grid (H, W)."""
        return GatedPixelCNN(self, grid)

    @property
    def receptive_rows(self) -> int:
        """R and L: rows and columns of a causal filter, the current one included."""
        return (self.kernel + 1) // 2


@dataclass
class GatedPixelCNNCache:
    """The state of a `GatedPixelCNN` between two steps.

    Windows and biases of all layers are in one tensor each, so that one operation moves them all.

    Arguments:
        row_above: embedded values, (B, C, 1, W); the current row up to the current column, then
            the row above.
        rows: inputs of each layer's vertical stack, (B, C, R, W).
        columns: inputs of the horizontal stack of all layers, (layers, B, L, C).
        row_biases: what the row adds to the horizontal gates of all layers, (layers, B, W, 2G).
        attention: keys and values of each attention.
    """

    row_above: Tensor
    rows: list[Tensor]
    columns: Tensor
    row_biases: Tensor
    attention: list[KeyValueCache]


class GatedLayer(nn.Module):
    """One layer of both stacks, with or without self-attention after it."""

    attention: CausalAttention | None

    def __init__(self, config: GatedPixelCNNConfig, attends: bool) -> None:
        super().__init__()
        width, gate = config.channels, config.residual_channels
        size = config.receptive_rows
        self.vertical = VerticalConv(width, 2 * gate, size, config.kernel)
        self.vertical_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.vertical_out = nn.Conv2d(gate, width, 1)
        self.link = nn.Conv2d(width, 2 * gate, 1)
        self.horizontal = HorizontalConv(width, 2 * gate, size)
        self.horizontal_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.horizontal_out = nn.Conv2d(gate, width, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.attention = (
            CausalAttention(width, config.num_heads, config.dropout) if attends else None
        )

    def forward(self, v: Tensor, h: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the vertical and the horizontal stack, (B, C, H, W) each, to the same shapes."""
        v = self._vertical(v, self.vertical(v), context)
        gates = self.horizontal(h) + self._row_bias(v, context)
        h = h + self.horizontal_out(self.dropout(gate(gates)))
        return v, h if self.attention is None else self.attention(h)

    def step_row(self, rows: Tensor, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """One row of the vertical stack.

        Arguments:
            rows: window (B, C, R, W), updated in place.
            v: the new row of the input, (B, C, 1, W).
            context: of the row, (B, C, 1, W or 1).

        Returns:
            The new row of the output, (B, C, 1, W), and its part of the horizontal gates,
            (B, W, 2G).
        """
        push(rows, v, dim=2)
        v = self._vertical(v, self.vertical.step(rows), context)
        return v, self._row_bias(v, context)[:, :, 0].transpose(1, 2)

    def step_column(self, columns: Tensor, row_bias: Tensor, h: Tensor) -> Tensor:
        """One position of the horizontal stack, (B, C), without the attention.

        Arguments:
            columns: window (B, L, C), already shifted; its last column is overwritten.
            row_bias: (B, 2G).
            h: (B, C).
        """
        columns[:, -1].copy_(h)
        gates = self.horizontal.step(columns) + row_bias
        return h + pointwise(self.horizontal_out, gate(gates))

    def _vertical(self, v: Tensor, convolved: Tensor, context: Tensor) -> Tensor:
        gates = convolved + self.vertical_bias(context)
        return v + self.vertical_out(self.dropout(gate(gates)))

    def _row_bias(self, v: Tensor, context: Tensor) -> Tensor:
        return self.link(v) + self.horizontal_bias(context)


class GatedPixelCNN(Network[GatedPixelCNNCache]):
    """The network of a `GatedPixelCNNConfig`, for maps of grid (H, W)."""

    def __init__(self, config: GatedPixelCNNConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.grid, self.num_features = config, grid, config.channels
        width, (height, columns) = config.channels, grid
        every = config.attention_every
        self.row_position = nn.Parameter(0.02 * torch.randn(width, height, 1))
        self.column_position = nn.Parameter(0.02 * torch.randn(width, 1, columns))
        self.layers = Modules(
            GatedLayer(config, attends=bool(every) and layer % every == 0)
            for layer in range(1, config.num_layers + 1)
        )
        self.output = ResidualStack(
            width, config.residual_channels, config.num_output_blocks, 1, config.dropout
        )

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W); maps may end after any row."""
        position = self.row_position[:, : values.shape[2]] + self.column_position
        v, h = shift_down(values) + position, shift_raster(values) + position
        for layer in self.layers:
            v, h = layer(v, h, context)
        return F.relu(self.output(h))

    def new_cache(self, batch: int) -> GatedPixelCNNCache:
        """The cache before the first position."""
        config, (height, width) = self.config, self.grid
        zeros, layers = self.row_position.new_zeros, config.num_layers
        size, gates = config.receptive_rows, 2 * config.residual_channels
        return GatedPixelCNNCache(
            row_above=zeros(batch, config.channels, 1, width),
            rows=[zeros(batch, config.channels, size, width) for _ in range(layers)],
            columns=zeros(layers, batch, size, config.channels),
            row_biases=zeros(layers, batch, width, gates),
            attention=[
                layer.attention.new_cache(batch, height * width)
                for layer in self.layers
                if layer.attention is not None
            ],
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """Whether a row starts, and the number of keys that attentions read."""
        attends = 0 < self.config.attention_every <= self.config.num_layers
        return position.starts_row, attends and num_keys(position.index, math.prod(self.grid))

    def step(
        self,
        cache: GatedPixelCNNCache,
        previous: Tensor,
        context: Tensor,
        position: RasterPosition,
    ) -> Tensor:
        """Features (B, C) of one position."""
        cache.row_above.index_copy_(3, position.previous_column, previous[:, :, None, None])
        if position.starts_row:
            self._start_row(cache, context_row(context, position.row), position.row)
        embedding = self.row_position.index_select(1, position.row)
        embedding = embedding + self.column_position.index_select(2, position.column)
        h = previous + embedding[:, 0, 0]
        biases = cache.row_biases.index_select(2, position.column)[:, :, 0]
        cache.columns[:, :, :-1] = cache.columns[:, :, 1:].clone()
        attention = iter(cache.attention)
        if cache.attention:
            prefix = Prefix.at(position, math.prod(self.grid), h.dtype)
        for layer, columns, bias in zip(self.layers, cache.columns, biases, strict=True):
            h = layer.step_column(columns, bias, h)
            if layer.attention is not None:
                h = layer.attention.step(next(attention), h, prefix)
        return F.relu(self.output(h[:, :, None, None])[:, :, 0, 0])

    def _start_row(self, cache: GatedPixelCNNCache, context: Tensor, row: Tensor) -> None:
        """Runs the vertical stack for row `row`, (1,) int64, with the context of that row."""
        v = cache.row_above + self.row_position.index_select(1, row) + self.column_position
        for layer, rows, bias in zip(self.layers, cache.rows, cache.row_biases, strict=True):
            v, row_bias = layer.step_row(rows, v, context)
            bias.copy_(row_bias)
        cache.columns.zero_()


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second (Eq. 2)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()
