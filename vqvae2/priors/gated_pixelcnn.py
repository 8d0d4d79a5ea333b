"""The prior of VQ-VAE-2: a gated PixelCNN with self-attention (Sec. 3.2; arXiv 1606.05328).

The layers are those of `vqvae2.nn.gated`, biased by the context, which embeds the label and the
coarser codes. Every few layers the horizontal stack attends to the complete past. Residual 1x1
blocks and a ReLU follow the last layer.

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

from vqvae2.configuration import AtLeast0, AtLeast1, require_ranges
from vqvae2.nn.attention import (
    KeyValueCache,
    Prefix,
    new_mask,
    num_keys,
    require_heads,
)
from vqvae2.nn.causal import (
    RasterPosition,
    bias_of,
    pointwise,
    shift_down,
    shift_raster,
    store,
)
from vqvae2.nn.gated import ColumnStep, GatedLayer
from vqvae2.nn.modules import Modules
from vqvae2.nn.residual import ResidualStack, StackBiases, StackStep
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
    residual_channels: AtLeast1 = 128
    num_layers: AtLeast1 = 8
    kernel: AtLeast1 = 5
    attention_every: AtLeast0 = 0
    num_heads: AtLeast1 = 4
    num_output_blocks: AtLeast0 = 2

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)
        require_odd(self.kernel)
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
class FoldedBiases:
    """What follows from the weights alone; see `vqvae2.nn.residual` for offsets and folded biases.

    Arguments:
        v, h: offsets of the inputs of both stacks, (layers, C) each.
        gates: of the vertical and the horizontal gates, (2, layers, 2G); the latter includes the
            link.
        attention: of queries, keys and values, (attentions, 3C).
        output: of the blocks after the last layer.
    """

    v: Tensor
    h: Tensor
    gates: Tensor
    attention: Tensor
    output: StackBiases


@dataclass
class GatedPixelCNNCache:
    """The state of a `GatedPixelCNN` between two steps.

    Windows and biases of all layers are in one tensor each, so that one operation moves them all.

    Arguments:
        biases: from the first position on, as are the next three.
        positions: embeddings of the positions for `h`, with its offset, (N, C).
        rows_of_positions: the same for `v`, (H, C, W).
        shared_biases: folded biases with what a context that all positions share adds to the
            vertical and horizontal gates of all layers, (2, layers, B, 2G).
        row_above: embedded values, (B, C, W); the current row up to the current column, then the
            row above.
        rows: inputs of the vertical stack of all layers, with margins at both sides,
            (layers, B, C, R, W + kernel - 1).
        columns: inputs of the horizontal stack of all layers, (layers, B, L, C).
        row_biases: what the row adds to the horizontal gates of all layers, (layers, B, W, 2G).
        attention: keys and values of each attention.
        mask: of the attentions, (N,).
        column_steps, output_step: what computes a position, with views of the tensors above.
    """

    biases: FoldedBiases
    positions: Tensor
    rows_of_positions: Tensor
    shared_biases: Tensor
    row_above: Tensor
    rows: Tensor
    columns: Tensor
    row_biases: Tensor
    attention: list[KeyValueCache]
    mask: Tensor
    column_steps: list[ColumnStep]
    output_step: StackStep


class GatedPixelCNN(Network[GatedPixelCNNCache]):
    """The network of a `GatedPixelCNNConfig`, for maps of grid (H, W)."""

    def __init__(self, config: GatedPixelCNNConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.grid, self.num_features = config, grid, config.channels
        width, (height, columns) = config.channels, grid
        every, heads = config.attention_every, config.num_heads
        sizes = width, config.residual_channels, config.kernel, config.dropout
        self.row_position = nn.Parameter(0.02 * torch.randn(width, height, 1))
        self.column_position = nn.Parameter(0.02 * torch.randn(width, 1, columns))
        self.layers = Modules(
            GatedLayer(*sizes, num_heads=heads if every and layer % every == 0 else 0)
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
        like, layers = self.row_position, config.num_layers
        zeros, size, gates = like.new_zeros, config.receptive_rows, 2 * config.residual_channels
        attentions = [layer.attention for layer in self.layers if layer.attention is not None]
        channels = config.channels
        biases = FoldedBiases(
            v=zeros(layers, channels),
            h=zeros(layers, channels),
            gates=zeros(2, layers, gates),
            attention=zeros(len(attentions), 3 * channels),
            output=self.output.new_biases(like),
        )
        columns = zeros(layers, batch, size, channels)
        return GatedPixelCNNCache(
            biases=biases,
            positions=zeros(height * width, channels),
            rows_of_positions=zeros(height, channels, width),
            shared_biases=zeros(2, layers, batch, gates),
            row_above=zeros(batch, channels, width),
            rows=zeros(layers, batch, channels, size, width + config.kernel - 1),
            columns=columns,
            row_biases=zeros(layers, batch, width, gates),
            attention=[attention.new_cache(batch, height * width) for attention in attentions],
            mask=new_mask(like, height * width),
            column_steps=self._column_steps(columns),
            output_step=StackStep(self.output, biases.output),
        )

    def _column_steps(self, columns: Tensor) -> list[ColumnStep]:
        """The steps of all layers, whose windows are `columns`, (layers, B, L, C)."""
        # A layer's output is written to where the next layer's window ends.
        ends = [*columns[1:, :, -1].unbind(), None]
        return [
            ColumnStep(layer, window, end if layer.attention is None else None)
            for layer, window, end in zip(self.layers, columns, ends, strict=True)
        ]

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
        store(cache.row_above, 2, position.previous_column, previous[:, :, None])
        if position.starts_row:
            self._start_row(cache, context, position.row)
        embedding = cache.positions.index_select(0, position.flat_index)
        row_biases = cache.row_biases.index_select(2, position.column)[:, :, 0]
        cache.columns[:, :, :-1] = cache.columns[:, :, 1:].clone()
        inputs = cache.columns[:, :, -1].unbind()
        h = torch.add(previous, embedding, out=inputs[0])
        if cache.attention:
            prefix = Prefix.at(position, cache.mask)
        attentions = zip(cache.attention, cache.biases.attention, strict=True)
        ends = [*inputs[1:], None]
        steps = zip(self.layers, cache.column_steps, row_biases, ends, strict=True)
        for layer, step, row_bias, end in steps:
            h = step(h, row_bias)
            if layer.attention is not None:
                state, bias = next(attentions)
                h = layer.attention.step(state, h, prefix, bias, end)
        return F.relu(cache.output_step(h))

    def _start_map(self, cache: GatedPixelCNNCache, context: Tensor) -> None:
        """Computes what all positions of a map share."""
        self._fold(cache.biases)
        positions, biases = self.row_position + self.column_position, cache.biases
        cache.positions.copy_(positions.flatten(1).T + biases.h[0])
        cache.rows_of_positions.copy_((positions + biases.v[0, :, None, None]).transpose(0, 1))
        # Outside of the map, the inputs of both stacks are zero but for their offsets.
        cache.rows.copy_(biases.v[:, None, :, None, None])
        if is_shared(context):
            label = context[:, :, 0, 0]
            for number, layer in enumerate(self.layers):
                convs = layer.vertical_bias, layer.horizontal_bias
                added = torch.stack([pointwise(conv, label) for conv in convs])
                cache.shared_biases[:, number] = added + biases.gates[:, number, None]

    def _fold(self, biases: FoldedBiases) -> None:
        """Computes the folded biases, from the last layer to the first."""
        h, v = self.output.fold(biases.output), torch.zeros_like(biases.v[0])
        attention = len(biases.attention)
        for number, layer in reversed([*enumerate(self.layers)]):
            if layer.attention is not None:
                attention -= 1
                h = h + layer.attention.out.bias
                biases.attention[attention].copy_(layer.attention.folded_bias(h))
            link = v
            h, v = h + bias_of(layer.horizontal_out), v + bias_of(layer.vertical_out)
            biases.v[number].copy_(v)
            biases.h[number].copy_(h)
            biases.gates[:, number].copy_(torch.stack(layer.fold(v, h, link)))

    def _start_row(self, cache: GatedPixelCNNCache, context: Tensor, row: Tensor) -> None:
        """Runs the vertical stack for row `row`, (1,) int64."""
        row_context, biases = None, cache.shared_biases
        if not is_shared(context):
            row_context, biases = context.index_select(2, row)[:, :, 0], cache.biases.gates
        cache.rows[..., :-1, :] = cache.rows[..., 1:, :].clone()
        side = self.config.kernel // 2
        inputs = cache.rows[..., -1, side : side + self.grid[1]].unbind()
        v = torch.add(cache.row_above, cache.rows_of_positions.index_select(0, row), out=inputs[0])
        ends = [*inputs[1:], None]
        for number, (layer, end) in enumerate(zip(self.layers, ends, strict=True)):
            vertical, horizontal = biases[:, number]
            gates = layer.vertical_gates(cache.rows[number], vertical, row_context)
            v = layer.step_row(v, gates, end)
            layer.row_bias(v, horizontal, row_context, cache.row_biases[number])
        # The columns before the first one are zero, but for the offset.
        cache.columns.copy_(cache.biases.h[:, None, None])


def is_shared(context: Tensor) -> bool:
    """Whether all positions share a context (B, C, H or 1, W or 1)."""
    return context.shape[2:] == (1, 1)
