"""Diagonal BiLSTM: reads a map along its diagonals from both top corners (PixelRNN, Sec. 3.2).

    rightward   the state at (r, c) comes from (r, c - 1) and (r - 1, c)
    leftward    the state at (r, c) comes from (r, c + 1) and (r - 1, c)

The leftward states are moved down by one row before both are added, so that no position depends on
positions to its right. The receptive field of a single layer is the complete past. Layers are
residual.

Legend: `B` batch, `C` channels, `S` state channels per direction, `H W` grid.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, require_ranges
from vqvae2.nn.causal import RasterCache, RasterConv, RasterKernel, pointwise, shift_down, store
from vqvae2.priors.network import PriorConfig
from vqvae2.priors.row_lstm import lstm_step
from vqvae2.priors.stack import Layer, Stack


@dataclass(frozen=True, kw_only=True)
class DiagonalBiLSTMConfig(PriorConfig):
    """The architecture of a Diagonal BiLSTM.

    Arguments:
        state_channels: S, of each direction.
        num_layers: LSTM layers.
        dropout: on the output of each layer.
    """

    kind: Literal["diagonal-bilstm"] = "diagonal-bilstm"
    state_channels: AtLeast1 = 96
    num_layers: AtLeast1 = 7

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)

    def network(self, grid: tuple[int, int]) -> Stack:
        """The network for maps of grid (H, W)."""
        layers = (DiagonalBiLSTMLayer(self) for _ in range(self.num_layers))
        return Stack(layers, self.channels, grid[1])


@dataclass
class DirectionCache:
    """The states of one direction.

    Arguments:
        row: hidden states of the newest row, (B, S, W); columns to come hold the row above.
        row_gates: what the row above adds to the gates of each column, (B, W, 4S).
        hidden, cell: of the newest position, (B, S).
    """

    row: Tensor
    row_gates: Tensor
    hidden: Tensor
    cell: Tensor


@dataclass
class LayerCache:
    """The state of one layer between two steps.

    Arguments:
        inputs: of the input-to-state convolution.
        rightward, leftward: of the two directions.
        pending: gates of the current row, (B, W, 4S), for the leftward direction, which can only
            run when the row is complete.
    """

    inputs: RasterCache
    rightward: DirectionCache
    leftward: DirectionCache
    pending: Tensor


class DiagonalBiLSTMLayer(Layer[LayerCache]):
    """One residual layer of both directions."""

    def __init__(self, config: DiagonalBiLSTMConfig) -> None:
        super().__init__()
        width, self.state = config.channels, config.state_channels
        kernel = RasterKernel(above=0, left=0, right=0)
        self.inputs = RasterConv(width, 8 * self.state, width, kernel)
        # The two taps are neighbouring rows of a diagonal: the row above, then the current row.
        self.states = nn.Conv1d(2 * self.state, 8 * self.state, 2, groups=2, bias=False)
        self.out = nn.Conv2d(self.state, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape, diagonal after diagonal."""
        height, width = x.shape[2:]
        rightward, leftward = self.inputs(x, context).chunk(2, dim=1)
        gates = skew(torch.stack([rightward, leftward.flip(-1)], dim=1))
        # `unbind` has one gradient for all diagonals; indexing would make one of the map's size
        # for each.
        diagonals = gates.movedim(-1, 0).contiguous().unbind(0)
        hidden = x.new_zeros(len(x), 2 * self.state, height)
        cell = x.new_zeros(2 * len(x), self.state, height)
        rows, states = torch.arange(height, device=x.device), []
        for number, diagonal in enumerate(diagonals):
            recurrent = self.states(F.pad(hidden, (1, 0))).view_as(diagonal)
            next_hidden, cell = lstm_step((diagonal + recurrent).flatten(0, 1), cell)
            # Row r starts at diagonal r; before that its states are zero, whatever the row above.
            started = (rows <= number).to(x.dtype)
            hidden, cell = (next_hidden * started).view_as(hidden), cell * started
            states.append(hidden)
        both = unskew(torch.stack(states, dim=-1), width)
        right, left = both.chunk(2, dim=1)
        mixed = right + shift_down(left.flip(-1))
        return x + self.out(self.dropout(mixed))

    def new_cache(self, batch: int, width: int) -> LayerCache:
        """The cache before the first row."""
        state, zeros = self.state, self.out.weight.new_zeros

        def direction() -> DirectionCache:
            return DirectionCache(
                row=zeros(batch, state, width),
                row_gates=zeros(batch, width, 4 * state),
                hidden=zeros(batch, state),
                cell=zeros(batch, state),
            )

        pending = zeros(batch, width, 4 * state)
        inputs = self.inputs.new_cache(batch, width)
        return LayerCache(inputs, direction(), direction(), pending)

    def start_row(self, cache: LayerCache, context: Tensor) -> None:
        """Runs the leftward direction over the previous row, then prepares the next row.

        At the first row the previous one is all zeros, and its states stay zero.
        """
        self._start_direction(cache.rightward, 0)
        self._start_direction(cache.leftward, 1)
        for column in reversed(range(cache.pending.shape[1])):
            gates = cache.pending[:, column] + cache.leftward.row_gates[:, column]
            self._advance(cache.leftward, 1, gates)
            cache.leftward.row[..., column] = cache.leftward.hidden
        self.inputs.start_row(cache.inputs, context)

    def step(self, cache: LayerCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        rightward, leftward = self.inputs.step(cache.inputs, x, column).chunk(2, dim=1)
        store(cache.pending, 1, column, leftward[:, None])
        state = cache.rightward
        gates = rightward + state.row_gates.index_select(1, column)[:, 0]
        self._advance(state, 0, gates)
        store(state.row, 2, column, state.hidden[..., None])
        mixed = state.hidden + cache.leftward.row.index_select(2, column)[..., 0]
        return x + pointwise(self.out, mixed)

    def _start_direction(self, cache: DirectionCache, direction: int) -> None:
        gates = F.linear(cache.row.transpose(1, 2), self._weight(direction, 0))
        cache.row_gates.copy_(gates)
        cache.hidden.zero_()
        cache.cell.zero_()

    def _advance(self, cache: DirectionCache, direction: int, gates: Tensor) -> None:
        gates = gates + F.linear(cache.hidden, self._weight(direction, 1))
        hidden, cell = lstm_step(gates, cache.cell)
        cache.hidden.copy_(hidden)
        cache.cell.copy_(cell)

    def _weight(self, direction: int, tap: int) -> Tensor:
        """State weights (4S, S).

        Arguments:
            direction: 0 for rightward, 1 for leftward.
            tap: 0 for the row above, 1 for the previous position of the row.
        """
        return self.states.weight.unflatten(0, (2, -1))[direction, :, :, tap]


def skew(x: Tensor) -> Tensor:
    """Moves row r of (..., H, W) to the right by r columns: (..., H, W + H - 1)."""
    height, width = x.shape[-2:]
    padded = F.pad(x, (0, height)).flatten(-2)[..., :-height]
    return padded.unflatten(-1, (height, width + height - 1))


def unskew(x: Tensor, width: int) -> Tensor:
    """The inverse of `skew`: (..., H, W + H - 1) to (..., H, W)."""
    height = x.shape[-2]
    padded = F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, -1))
    return padded[..., :width]
