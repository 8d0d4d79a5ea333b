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
    shift_down,
    shift_raster,
    store,
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
        embeddings: of the positions, (N, C), from the first position on.
        context_biases: what a context that all positions share adds to the vertical and horizontal
            gates of all layers, (layers, 2, B, 2G, 1, 1), from the first position on.
        row_above: embedded values, (B, C, 1, W); the current row up to the current column, then
            the row above.
        rows: inputs of the vertical stack of all layers, with zeros at both sides,
            (layers, B, C, R, W + kernel - 1).
        columns: inputs of the horizontal stack of all layers, (layers, B, L, C).
        row_biases: what the row adds to the horizontal gates of all layers, (layers, B, W, 2G).
        attention: keys and values of each attention.
    """

    embeddings: Tensor
    context_biases: Tensor
    row_above: Tensor
    rows: Tensor
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

    def step_row(self, rows: Tensor, context_bias: Tensor) -> Tensor:
        """One row of the vertical stack.

        Arguments:
            rows: window (B, C, R, W + kernel - 1) of the input, the new row included.
            context_bias: the first of `context_biases`, of the row.

        Returns:
            What is to be added to the input's new row, (B, C, 1, W).
        """
        gates = self.vertical.conv(rows) + context_bias
        return self.vertical_out(gate_in_place(gates))

    def step_column(self, columns: Tensor, row_bias: Tensor) -> Tensor:
        """One position of the horizontal stack, without the attention.

        Arguments:
            columns: window (B, L, C) of the input, the new column included.
            row_bias: (B, 2G), overwritten.

        Returns:
            What is to be added to the input's new column, (B, C).
        """
        if columns.is_cuda:
            gates = self.horizontal.add_step(row_bias, columns)
        else:
            gates = self.horizontal.step(columns) + row_bias
        return pointwise(self.horizontal_out, gate_in_place(gates))

    def context_biases(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """What the context adds to the vertical and the horizontal gates, (B, 2G, H, W) each.

        On a GPU the latter contains the bias of the horizontal convolution, which so costs no
        operation per position.
        """
        bias = self.horizontal.bias if context.is_cuda else None
        horizontal = F.conv2d(context, self.horizontal_bias.weight, bias)
        return self.vertical_bias(context), horizontal

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
            embeddings=zeros(height * width, config.channels),
            context_biases=zeros(layers, 2, batch, gates, 1, 1),
            row_above=zeros(batch, config.channels, 1, width),
            rows=zeros(layers, batch, config.channels, size, width + config.kernel - 1),
            columns=zeros(layers, batch, size, config.channels),
            row_biases=zeros(layers, batch, width, gates),
            attention=[
                layer.attention.new_cache(batch, height * width)
                for layer in self.layers
                if layer.attention is not None
            ],
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """Whether the map and a row start, and the number of keys that attentions read."""
        attends = 0 < self.config.attention_every <= self.config.num_layers
        length = attends and num_keys(position.index, math.prod(self.grid))
        return position.index == 0, position.starts_row, length

    def step(
        self,
        cache: GatedPixelCNNCache,
        previous: Tensor,
        context: Tensor,
        position: RasterPosition,
    ) -> Tensor:
        """Features (B, C) of one position."""
        if position.index == 0:
            self._start_map(cache, context)
        store(cache.row_above, 3, position.previous_column, previous[:, :, None, None])
        if position.starts_row:
            self._start_row(cache, context, position.row)
        embedding = cache.embeddings.index_select(0, position.flat_index)
        biases = cache.row_biases.index_select(2, position.column)[:, :, 0]
        cache.columns[:, :, :-1] = cache.columns[:, :, 1:].clone()
        # A layer's output is written to where the next layer's window ends.
        inputs = cache.columns[:, :, -1].unbind()
        h = torch.add(previous, embedding, out=inputs[0])
        attention = iter(cache.attention)
        if cache.attention:
            prefix = Prefix.at(position, math.prod(self.grid), h.dtype)
        ends = [*inputs[1:], None]
        for layer, columns, bias, end in zip(
            self.layers, cache.columns, biases, ends, strict=True
        ):
            change = layer.step_column(columns, bias)
            if layer.attention is None:
                h = torch.add(h, change, out=end)
            else:
                h = layer.attention.step(next(attention), h + change, prefix, out=end)
        return F.relu(self.output.step(h))

    def _start_map(self, cache: GatedPixelCNNCache, context: Tensor) -> None:
        """Computes what all positions of a map share."""
        embeddings = self.row_position + self.column_position
        cache.embeddings.copy_(embeddings.flatten(1).T)
        if context.shape[2:] == (1, 1):
            for layer, biases in zip(self.layers, cache.context_biases, strict=True):
                for bias, value in zip(biases, layer.context_biases(context), strict=True):
                    bias.copy_(value)

    def _start_row(self, cache: GatedPixelCNNCache, context: Tensor, row: Tensor) -> None:
        """Runs the vertical stack for row `row`, (1,) int64."""
        is_shared = context.shape[2:] == (1, 1)
        context = context_row(context, row)
        cache.rows[..., :-1, :] = cache.rows[..., 1:, :].clone()
        side = self.config.kernel // 2
        inputs = cache.rows[..., -1:, side : side + self.grid[1]].unbind()
        v = cache.row_above + self.row_position.index_select(1, row)
        v = torch.add(v, self.column_position, out=inputs[0])
        ends = [*inputs[1:], None]
        for number, (layer, end) in enumerate(zip(self.layers, ends, strict=True)):
            shared = cache.context_biases[number].unbind()
            biases = shared if is_shared else layer.context_biases(context)
            v = torch.add(v, layer.step_row(cache.rows[number], biases[0]), out=end)
            row_bias = cache.row_biases[number].transpose(1, 2)[:, :, None]
            torch.add(layer.link(v), biases[1], out=row_bias)
        cache.columns.zero_()


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second (Eq. 2)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def gate_in_place(x: Tensor) -> Tensor:
    """`gate` in two operations; overwrites its input."""
    x.narrow(1, 0, x.shape[1] // 2).tanh_()
    return F.glu(x, dim=1)
