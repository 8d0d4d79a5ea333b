"""Row LSTM: reads a map row by row with a convolutional LSTM (PixelRNN, Sec. 3.1).

    o, f, i = sigmoid(K_ss * h(row above) + K_is * x),  g = tanh(...)
    c = f c(row above) + i g,  h = o tanh(c)

The state-to-state convolution K_ss spans three columns of the row above and the input-to-state
convolution K_is the columns to the left, so the receptive field in the rows above is a triangle.
Layers are residual.

Legend: `B` batch, `C` channels, `S` state channels, `H W` grid.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, require_ranges
from vqvae2.nn.causal import RasterCache, RasterConv, RasterKernel, pointwise, store
from vqvae2.priors.network import PriorConfig, require_odd
from vqvae2.priors.stack import Layer, Stack


@dataclass(frozen=True, kw_only=True)
class RowLSTMConfig(PriorConfig):
    """The architecture of a Row LSTM.

    Arguments:
        state_channels: S.
        num_layers: LSTM layers.
        kernel: columns of the state-to-state convolution, odd.
        dropout: on the output of each layer.
    """

    kind: Literal["row-lstm"] = "row-lstm"
    state_channels: AtLeast1 = 128
    num_layers: AtLeast1 = 7
    kernel: AtLeast1 = 3

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)
        require_odd(self.kernel)

    def network(self, grid: tuple[int, int]) -> Stack:
        """The network for maps of grid (H, W)."""
        layers = (RowLSTMLayer(self) for _ in range(self.num_layers))
        return Stack(layers, self.channels, grid[1])


@dataclass
class LayerCache:
    """The state of one layer between two steps.

    Arguments:
        inputs: of the input-to-state convolution.
        hidden, cell: (B, S, W); the current row up to the current column, then the row above.
        row_gates: what the row above adds to the gates of each column, (B, W, 4S).
        cell_above: the cells of the row above, (B, S, W).
    """

    inputs: RasterCache
    hidden: Tensor
    cell: Tensor
    row_gates: Tensor
    cell_above: Tensor


class RowLSTMLayer(Layer[LayerCache]):
    """One residual layer."""

    def __init__(self, config: RowLSTMConfig) -> None:
        super().__init__()
        width, state = config.channels, config.state_channels
        left = config.kernel // 2
        kernel = RasterKernel(above=0, left=left, right=0)
        self.inputs = RasterConv(width, 4 * state, width, kernel)
        self.states = nn.Conv1d(state, 4 * state, config.kernel, padding=left, bias=False)
        self.out = nn.Conv2d(state, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape, row after row."""
        rows = self.inputs(x, context).unbind(2)
        hidden = cell = x.new_zeros(len(x), self.out.in_channels, x.shape[3])
        states = []
        for gates in rows:
            hidden, cell = lstm_step(gates + self.states(hidden), cell)
            states.append(hidden)
        return x + self.out(self.dropout(torch.stack(states, dim=2)))

    def new_cache(self, batch: int, width: int) -> LayerCache:
        """The cache before the first row."""
        state, zeros = self.out.in_channels, self.out.weight.new_zeros
        return LayerCache(
            inputs=self.inputs.new_cache(batch, width),
            hidden=zeros(batch, state, width),
            cell=zeros(batch, state, width),
            row_gates=zeros(batch, width, 4 * state),
            cell_above=zeros(batch, state, width),
        )

    def start_row(self, cache: LayerCache, context: Tensor) -> None:
        """Convolves the states of the previous row, once for all columns."""
        self.inputs.start_row(cache.inputs, context)
        cache.row_gates.copy_(self.states(cache.hidden).transpose(1, 2))
        cache.cell_above.copy_(cache.cell)

    def step(self, cache: LayerCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        gates = self.inputs.step(cache.inputs, x, column)
        gates = gates + cache.row_gates.index_select(1, column)[:, 0]
        hidden, cell = lstm_step(gates, cache.cell_above.index_select(2, column)[..., 0])
        store(cache.hidden, 2, column, hidden[..., None])
        store(cache.cell, 2, column, cell[..., None])
        return x + pointwise(self.out, hidden)


def lstm_step(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next hidden state and cell, (B, S, ...) each, of an LSTM.

    Arguments:
        gates: (B, 4S, ...), output, forget and input gate and the new content, in this order.
        cell: (B, S, ...).
    """
    o, f, i, g = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell
