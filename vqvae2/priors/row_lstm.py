"""Row LSTM: a map read row by row, each by a convolutional LSTM (PixelRNN, Sec. 3.1).

    o, f, i = sigmoid(K_ss * h(row above) + K_is * x),  g = tanh(...)
    c = f c(row above) + i g,  h = o tanh(c)

The state comes from three columns of the row above, the input from the left: what is seen of the
rows above is a triangle. Layers are residual.

Legend: `B` batch, `C` channels, `S` state channels, `H W` grid.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from vqvae2.nn.causal import RasterCache, RasterConv, pointwise
from vqvae2.priors.network import PriorConfig, require_odd, require_positive
from vqvae2.priors.stack import Layer, Stack


@dataclass(frozen=True, kw_only=True)
class RowLSTMConfig(PriorConfig):
    """The architecture.

    Arguments:
        channels: C.
        state_channels: S.
        num_layers: LSTM layers.
        kernel: columns of the row above that a state comes from, odd.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: on each layer's output.
    """

    kind: Literal["row-lstm"] = "row-lstm"
    channels: int = 128
    state_channels: int = 128
    num_layers: int = 7
    kernel: int = 3
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        require_positive(
            channels=self.channels, state_channels=self.state_channels, num_layers=self.num_layers
        )
        require_odd(self.kernel)

    def network(self, grid: tuple[int, int]) -> Stack:
        """The network for maps of grid (H, W)."""
        return Stack([RowLSTMLayer(self) for _ in range(self.num_layers)], self.channels, grid)


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


class RowLSTMLayer(Layer):
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


def advance(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden state and cell after one step of an LSTM, from its gates (B, 4S, ...)."""
    o, f, i, g = gates.chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell
