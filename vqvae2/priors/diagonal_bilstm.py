"""Diagonal BiLSTM: a map read along its diagonals from both top corners (PixelRNN, Sec. 3.2).

    left to right   the state at (r, c) comes from (r, c - 1) and (r - 1, c)
    right to left   the state at (r, c) comes from (r, c + 1) and (r - 1, c)

The second is moved down by a row before it is added, so that no position sees what is right of it.
One layer already sees the whole past. Layers are residual.

Legend: `B` batch, `C` channels, `S` state channels a direction, `H W` grid.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import RasterCache, RasterConv, pointwise, shift_down
from vqvae2.priors.network import PriorConfig, require_positive
from vqvae2.priors.row_lstm import advance
from vqvae2.priors.stack import Layer, Stack


@dataclass(frozen=True, kw_only=True)
class DiagonalBiLSTMConfig(PriorConfig):
    """The architecture.

    Arguments:
        channels: C.
        state_channels: S, of each direction.
        num_layers: LSTM layers.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: on each layer's output.
    """

    kind: Literal["diagonal-bilstm"] = "diagonal-bilstm"
    channels: int = 128
    state_channels: int = 96
    num_layers: int = 7
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        require_positive(
            channels=self.channels, state_channels=self.state_channels, num_layers=self.num_layers
        )

    def network(self, grid: tuple[int, int]) -> Stack:
        """The network for maps of grid (H, W)."""
        return Stack(
            [DiagonalBiLSTMLayer(self) for _ in range(self.num_layers)], self.channels, grid
        )


@dataclass
class DirectionCache:
    """States of one direction.

    Arguments:
        row: hidden states of the newest row, (B, S, W); columns to come hold the row above's.
        above: what the row above adds to each column's gates, (B, W, 4S).
        hidden, cell: of the newest position, (B, S).
    """

    row: Tensor
    above: Tensor
    hidden: Tensor
    cell: Tensor


@dataclass
class LayerCache:
    """What a layer keeps; `waiting` are the inputs of the direction that needs a whole row."""

    inputs: RasterCache
    rightward: DirectionCache
    leftward: DirectionCache
    waiting: Tensor


class DiagonalBiLSTMLayer(Layer):
    """One residual layer of both directions."""

    def __init__(self, config: DiagonalBiLSTMConfig) -> None:
        super().__init__()
        width, self.state = config.channels, config.state_channels
        self.inputs = RasterConv(width, 8 * self.state, width, above=0, left=0, right=0)
        # Of two neighbouring rows on a diagonal: the row above, then the position's own.
        self.states = nn.Conv1d(2 * self.state, 8 * self.state, 2, groups=2, bias=False)
        self.out = nn.Conv2d(self.state, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape, diagonal after diagonal."""
        height, width = x.shape[2:]
        rightward, leftward = self.inputs(x, context).chunk(2, dim=1)
        gates = skew(torch.stack([rightward, leftward.flip(-1)], dim=1))
        # One gradient for all diagonals: indexing would make one as large as the map for each.
        diagonals = gates.movedim(-1, 0).contiguous().unbind(0)
        hidden = x.new_zeros(len(x), 2 * self.state, height)
        cell = x.new_zeros(2 * len(x), self.state, height)
        rows, states = torch.arange(height, device=x.device), []
        for number, diagonal in enumerate(diagonals):
            added = self.states(F.pad(hidden, (1, 0))).view_as(diagonal)
            new, cell = advance((diagonal + added).flatten(0, 1), cell)
            # A row that has not begun has no state, whatever the row above says.
            begun = (rows <= number).to(x.dtype)
            hidden, cell = (new * begun).view_as(hidden), cell * begun
            states.append(hidden)
        both = unskew(torch.stack(states, dim=-1), width)
        right, left = both.chunk(2, dim=1)
        mixed = right + shift_down(left.flip(-1))
        return x + cast(Tensor, self.out(self.dropout(mixed)))

    def new_cache(self, batch: int, width: int) -> LayerCache:
        """The state before the first row."""
        state, zeros = self.state, self.out.weight.new_zeros

        def direction() -> DirectionCache:
            return DirectionCache(
                row=zeros(batch, state, width),
                above=zeros(batch, width, 4 * state),
                hidden=zeros(batch, state),
                cell=zeros(batch, state),
            )

        waiting = zeros(batch, width, 4 * state)
        inputs = self.inputs.new_cache(batch, width)
        return LayerCache(inputs, direction(), direction(), waiting)

    def begin_row(self, cache: LayerCache, context: Tensor) -> None:
        """Goes through the row before from right to left, then starts the new one.

        Before the first row lies nothing: from zeros come zeros.
        """
        self._begin(cache.rightward, 0)
        self._begin(cache.leftward, 1)
        for column in reversed(range(cache.waiting.shape[1])):
            self._go(cache.leftward, 1, cache.waiting[:, column], column)
        self.inputs.begin_row(cache.inputs, context)

    def step(self, cache: LayerCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        rightward, leftward = self.inputs.step(cache.inputs, x, column).chunk(2, dim=1)
        cache.waiting.index_copy_(1, column, leftward[:, None])
        state = cache.rightward
        gates = rightward + state.above.index_select(1, column)[:, 0]
        self._advance(state, 0, gates)
        state.row.index_copy_(2, column, state.hidden[..., None])
        mixed = state.hidden + cache.leftward.row.index_select(2, column)[..., 0]
        return x + pointwise(self.out, mixed)

    def _begin(self, cache: DirectionCache, number: int) -> None:
        above = F.linear(cache.row.transpose(1, 2), self._weight(number, 0))
        cache.above.copy_(above)
        cache.hidden.zero_()
        cache.cell.zero_()

    def _go(self, cache: DirectionCache, number: int, gates: Tensor, column: int) -> None:
        self._advance(cache, number, gates + cache.above[:, column])
        cache.row[..., column] = cache.hidden

    def _advance(self, cache: DirectionCache, number: int, gates: Tensor) -> None:
        gates = gates + F.linear(cache.hidden, self._weight(number, 1))
        hidden, cell = advance(gates, cache.cell)
        cache.hidden.copy_(hidden)
        cache.cell.copy_(cell)

    def _weight(self, number: int, tap: int) -> Tensor:
        """(4S, S) of a direction, for the row above (0) or the position before (1)."""
        both: Tensor = self.states.weight.unflatten(0, (2, -1))
        return both[number, :, :, tap]


def skew(x: Tensor) -> Tensor:
    """(..., H, W) with row r moved r columns to the right: (..., H, W + H - 1)."""
    height, width = x.shape[-2:]
    wide = F.pad(x, (0, height)).flatten(-2)[..., :-height]
    skewed: Tensor = wide.unflatten(-1, (height, width + height - 1))
    return skewed


def unskew(x: Tensor, width: int) -> Tensor:
    """Undoes `skew`."""
    height = x.shape[-2]
    wide: Tensor = F.pad(x.flatten(-2), (0, height)).unflatten(-1, (height, -1))
    return wide[..., :width]
