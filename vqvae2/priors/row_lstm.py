"""Row LSTM: a map read row by row, each by a convolutional LSTM (PixelRNN, Sec. 3.1).

    o, f, i = sigmoid(K_ss * h(row above) + K_is * x),  g = tanh(...)
    c = f c(row above) + i g,  h = o tanh(c)

The state comes from three columns of the row above, the input from the left: what is seen of the
rows above is a triangle. Layers are residual.

Legend: `B` batch, `C` channels, `S` state channels, `H W` grid.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vqvae2.nn.causal import PastConv, Place, RasterCache, RasterConv, pointwise, row_of
from vqvae2.priors.network import Network


@dataclass(frozen=True, kw_only=True)
class RowLSTMConfig:
    """The architecture.

    Arguments:
        channels: C.
        state_channels: S.
        num_layers: LSTM layers.
        kernel: columns of the row above that a state comes from, odd.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: on each layer's output.
        num_mixtures: logistics a pixel; 0 for a softmax.
    """

    kind: Literal["row-lstm"] = "row-lstm"
    channels: int = 128
    state_channels: int = 128
    num_layers: int = 7
    kernel: int = 3
    num_conditioning_blocks: int = 4
    dropout: float = 0.1
    num_mixtures: int = 0


@dataclass
class LayerCache:
    """What a layer keeps.

    Arguments:
        inputs: of the input-to-state convolution.
        hidden, cell: of the row above, then of this row as it comes, (B, S, W).
        gates: what the row above adds to each column, (B, W, 4S).
        above: the row above's cells, (B, S, W).
    """

    inputs: RasterCache
    hidden: Tensor
    cell: Tensor
    gates: Tensor
    above: Tensor


@dataclass
class RowLSTMCache:
    """State between two steps."""

    place: Place
    context: Tensor
    first: RasterCache
    layers: list[LayerCache]


class RowLSTMLayer(nn.Module):
    """One residual layer."""

    def __init__(self, config: RowLSTMConfig) -> None:
        super().__init__()
        width, state = config.channels, config.state_channels
        left = config.kernel // 2
        self.inputs = RasterConv(width, 4 * state, width, above=0, left=left, right=0)
        self.states = nn.Conv1d(state, 4 * state, config.kernel, padding=left, bias=False)
        self.out = nn.Conv2d(state, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape, row after row."""
        rows = self.inputs(x, context).unbind(2)
        hidden = cell = x.new_zeros(len(x), self.out.in_channels, x.shape[3])
        states = []
        for gates in rows:
            hidden, cell = advance(gates + self.states(hidden), cell)
            states.append(hidden)
        return x + cast(Tensor, self.out(self.dropout(torch.stack(states, dim=2))))

    def new_cache(self, batch: int, width: int) -> LayerCache:
        """The state before the first row."""
        state, zeros = self.out.in_channels, self.out.weight.new_zeros
        return LayerCache(
            inputs=self.inputs.new_cache(batch, width),
            hidden=zeros(batch, state, width),
            cell=zeros(batch, state, width),
            gates=zeros(batch, width, 4 * state),
            above=zeros(batch, state, width),
        )

    def begin_row(self, cache: LayerCache, context: Tensor) -> None:
        """Computes what the row before means for all columns of the new one."""
        self.inputs.begin_row(cache.inputs, context)
        cache.gates.copy_(self.states(cache.hidden).transpose(1, 2))
        cache.above.copy_(cache.cell)

    def step(self, cache: LayerCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        gates = self.inputs.step(cache.inputs, x, column)
        gates = gates + cache.gates.index_select(1, column)[:, 0]
        hidden, cell = advance(gates, cache.above.index_select(2, column)[..., 0])
        cache.hidden.index_copy_(2, column, hidden[..., None])
        cache.cell.index_copy_(2, column, cell[..., None])
        return x + pointwise(self.out, hidden)


class RowLSTM(Network):
    """See the file's text."""

    FIRST_KERNEL = 7

    def __init__(self, config: RowLSTMConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, config.channels
        self.first = PastConv(config.channels, config.channels, self.FIRST_KERNEL)
        self.layers = nn.ModuleList(RowLSTMLayer(config) for _ in range(config.num_layers))

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x: Tensor = self.first(values)
        for layer in self.layers:
            x = layer(x, context)
        return x

    def new_cache(self, context: Tensor, batch: int) -> RowLSTMCache:
        """The state before the first position."""
        width = self.grid[1]
        return RowLSTMCache(
            place=Place.start(width, context.device),
            context=context,
            first=self.first.new_cache(batch, width),
            layers=[layer.new_cache(batch, width) for layer in self._layers()],
        )

    def phase(self, cache: RowLSTMCache) -> Hashable:
        """Does a row begin?"""
        return cache.place.begins_row

    def step(self, cache: RowLSTMCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        if place.begins_row:
            for layer, state in zip(self._layers(), cache.layers, strict=True):
                layer.begin_row(state, row_of(cache.context, place.row))
        x = self.first.step(cache.first, before, place)
        for layer, state in zip(self._layers(), cache.layers, strict=True):
            x = layer.step(state, x, place.column)
        place.advance()
        return x

    def _layers(self) -> list[RowLSTMLayer]:
        return cast(list[RowLSTMLayer], list(self.layers))


def advance(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden state and cell after one step of an LSTM, from its gates (B, 4S, ...)."""
    o, f, i, g = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell
