"""PixelCNN++: two streams through three scales, with shortcuts (arXiv 1701.05517, Sec. 2.3, 2.4).

The stream `u` covers the rows above a position. The stream `l` covers the row to the left and, in
every layer, `u`. Both are down-sampled to a quarter of the sides and up-sampled again; each layer
on the way up receives a shortcut from one on the way down. Layers are gated and residual, with a
concatenated ELU:

    x + a * sigmoid(b),  (a, b) = conv(dropout(elu2(conv(elu2(x)) + shortcuts)) + U context

When stepping, a row of `u` is computed once, when the row starts. A coarse row serves two rows,
and a coarse position four positions. Two differences from the paper: weights are not normalised,
and up-sampling uses 2x2 filters in both streams (the paper uses 2x3 in `u`).

Legend: `B` batch, `C` channels, `X` context channels, `H W` grid of the scale.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, Probability, require_ranges
from vqvae2.nn.causal import (
    PastConv,
    RasterCache,
    RasterConv,
    RasterKernel,
    RasterPosition,
    VerticalConv,
    context_row,
    pointwise,
    push,
    shift_down,
    store,
)
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block
from vqvae2.priors.network import Network, PriorConfig

KERNEL = RasterKernel(above=1, left=1, right=0)


@dataclass(frozen=True, kw_only=True)
class PixelCNNPPConfig(PriorConfig):
    """The architecture of a PixelCNN++; the paper's has 5 layers and 160 to 192 channels.

    Arguments:
        num_layers: layers per scale and direction (down, up).
        num_scales: the grid's sides must be multiples of 2 ** (num_scales - 1).
        dropout: inside each layer.
    """

    kind: Literal["pixelcnnpp"] = "pixelcnnpp"
    channels: AtLeast1 = 64
    num_layers: AtLeast1 = 3
    num_scales: AtLeast1 = 3
    dropout: Probability = 0.5

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)

    def network(self, grid: tuple[int, int]) -> "PixelCNNPP":
        """The network for maps of grid (H, W)."""
        return PixelCNNPP(self, grid)


Windows = tuple[Tensor, Tensor]
"""The state of a layer of `u`: the last two rows, (B, 2C, 2, W), of each of its convolutions."""

Caches = tuple[RasterCache, RasterCache]
"""The state of a layer of `l`: one cache per convolution."""


@dataclass
class ScaleCache:
    """The state of one scale between two steps: of its layers and of the coarser scales."""

    rows: list[Windows]
    positions: list[Caches]
    coarser: "CoarserCache | None"


@dataclass
class CoarserCache:
    """The state of the way to a coarser scale and back.

    Arguments:
        rows: rows of `u` that the next coarser row is computed from, (B, C, 2, W).
        positions: positions of `l` that the next coarser position is computed from.
        scale: of the coarser scale.
        upsampled_rows, upsampled: outputs for two rows of `u` and `l`, (B, C, 2, W).
    """

    rows: Tensor
    positions: RasterCache
    scale: ScaleCache
    upsampled_rows: Tensor
    upsampled: Tensor


@dataclass
class PixelCNNPPCache:
    """The state of a `PixelCNNPP` between two steps.

    Arguments:
        rows: embedded values of the last two rows, (B, C, 2, W).
        first: of the first convolution of `l`.
        scale: of the finest scale.
    """

    rows: Tensor
    first: RasterCache
    scale: ScaleCache


def elu2(x: Tensor) -> Tensor:
    """Concatenated ELU: of x and of -x, (B, C, ...) to (B, 2C, ...)."""
    return F.elu(torch.cat([x, -x], dim=1))


class RowLayer(Block):
    """A layer of `u`: from its own rows and, on the way up, from the shortcut."""

    def __init__(self, channels: int, dropout: float, shortcut: bool) -> None:
        super().__init__()
        self.first = VerticalConv(2 * channels, channels, 2, 3)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1) if shortcut else None
        self.second = VerticalConv(2 * channels, 2 * channels, 2, 3)
        self.context = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
        """Maps (B, C, H, W) to the same shape; `skip` is the shortcut's input, if any."""
        h = self._hidden(self.first(elu2(u)), skip)
        return u + F.glu(self.second(h) + self.context(context), dim=1)

    def new_cache(self, batch: int, width: int) -> Windows:
        """The windows before the first row."""
        return self.first.new_window(batch, width), self.second.new_window(batch, width)

    def step(self, windows: Windows, u: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
        """One row, (B, C, 1, W) to the same shape."""
        first, second = windows
        push(first, elu2(u), dim=2)
        push(second, self._hidden(self.first.step(first), skip), dim=2)
        return u + F.glu(self.second.step(second) + self.context(context), dim=1)

    def _hidden(self, h: Tensor, skip: Tensor | None) -> Tensor:
        if self.shortcut is not None and skip is not None:
            h = h + self.shortcut(elu2(skip))
        return self.dropout(elu2(h))


class PositionLayer(Block):
    """A layer of `l`: from itself, from `u` and, on the way up, from the shortcut."""

    def __init__(self, channels: int, dropout: float, shortcut: bool) -> None:
        super().__init__()
        self.first = RasterConv(2 * channels, channels, channels, KERNEL)
        self.from_rows = nn.Conv2d(2 * channels, channels, 1)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1) if shortcut else None
        self.second = RasterConv(2 * channels, 2 * channels, channels, KERNEL)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, u: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
        """Maps (B, C, H, W) to the same shape; `skip` is the shortcut's input, if any."""
        h = self.first(elu2(x), context) + self.from_rows(elu2(u))
        if self.shortcut is not None and skip is not None:
            h = h + self.shortcut(elu2(skip))
        return x + F.glu(self.second(self.dropout(elu2(h)), context), dim=1)

    def new_cache(self, batch: int, width: int) -> Caches:
        """The caches before the first row."""
        return self.first.new_cache(batch, width), self.second.new_cache(batch, width)

    def start_row(self, caches: Caches, u: Tensor, context: Tensor) -> None:
        """Computes what `u` (B, C, 1, W), context and rows above add to all columns."""
        first, second = caches
        self.first.start_row(first, context)
        self.second.start_row(second, context)
        first.row_bias.add_(self.from_rows(elu2(u))[:, :, 0].transpose(1, 2))

    def step(self, caches: Caches, x: Tensor, column: Tensor, skip: Tensor | None) -> Tensor:
        """One position, (B, C) to (B, C)."""
        first, second = caches
        h = self.first.step(first, elu2(x), column)
        if self.shortcut is not None and skip is not None:
            h = h + pointwise(self.shortcut, elu2(skip))
        return x + F.glu(self.second.step(second, elu2(h), column), dim=1)


class Scale(nn.Module):
    """The layers of one resolution, with all coarser scales between those down and those up."""

    coarser: "Coarser | None"

    def __init__(self, config: PixelCNNPPConfig, num_coarser: int) -> None:
        super().__init__()
        width, dropout = config.channels, config.dropout
        num_up = config.num_layers + (num_coarser > 0)
        directions = [False] * config.num_layers + [True] * num_up
        self.num_down = config.num_layers
        self.rows = Modules(RowLayer(width, dropout, up) for up in directions)
        self.positions = Modules(PositionLayer(width, dropout, up) for up in directions)
        self.coarser = Coarser(config, num_coarser) if num_coarser else None

    def forward(self, u: Tensor, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps both streams, (B, C, H, W) each, to the same shapes."""
        layers, skips = list(zip(self.rows, self.positions, strict=True)), [(u, x)]
        for rows, positions in layers[: self.num_down]:
            u = rows(u, context, None)
            x = positions(x, u, context, None)
            skips.append((u, x))
        if self.coarser is None:
            skips.pop()
        else:
            u, x = self.coarser(u, x, context)
        for rows, positions in layers[self.num_down :]:
            skip_u, skip_x = skips.pop()
            u = rows(u, context, skip_u)
            x = positions(x, u, context, skip_x)
        return u, x

    def new_cache(self, batch: int, width: int) -> ScaleCache:
        """The cache before the first row of maps with `width` columns."""
        coarser = self.coarser
        return ScaleCache(
            rows=[rows.new_cache(batch, width) for rows in self.rows],
            positions=[positions.new_cache(batch, width) for positions in self.positions],
            coarser=None if coarser is None else coarser.new_cache(batch, width),
        )

    def start_row(self, cache: ScaleCache, u: Tensor, context: Tensor, row: int) -> Tensor:
        """One row of `u`, (B, C, 1, W) to the same shape; prepares `l` for its columns.

        Arguments:
            context: of the row, (B, X, 1, W or 1).
            row: index of the row at this scale.
        """
        layers = list(zip(self.rows, self.positions, cache.rows, cache.positions, strict=True))
        skips = [u]
        for rows, positions, windows, caches in layers[: self.num_down]:
            u = rows.step(windows, u, context, None)
            positions.start_row(caches, u, context)
            skips.append(u)
        if self.coarser is None or cache.coarser is None:
            skips.pop()
        else:
            u = self.coarser.start_row(cache.coarser, u, context[..., ::2], row)
        for rows, positions, windows, caches in layers[self.num_down :]:
            u = rows.step(windows, u, context, skips.pop())
            positions.start_row(caches, u, context)
        return u

    def step(
        self, cache: ScaleCache, x: Tensor, position: tuple[int, int], column: Tensor
    ) -> Tensor:
        """One position of `l`, (B, C) to (B, C).

        Arguments:
            position: row and column at this scale, on the host.
            column: the column on the device, (1,) int64.
        """
        layers = list(zip(self.positions, cache.positions, strict=True))
        skips = [x]
        for positions, caches in layers[: self.num_down]:
            x = positions.step(caches, x, column, None)
            skips.append(x)
        if self.coarser is None or cache.coarser is None:
            skips.pop()
        else:
            x = self.coarser.step(cache.coarser, x, position, column)
        for positions, caches in layers[self.num_down :]:
            x = positions.step(caches, x, column, skips.pop())
        return x


class Coarser(nn.Module):
    """Both streams at half of the sides: down, through the coarser scales, and up again."""

    def __init__(self, config: PixelCNNPPConfig, num_coarser: int) -> None:
        super().__init__()
        width = self.width = config.channels
        self.shrink_rows = VerticalConv(width, width, 2, 3, stride=2)
        self.shrink = RasterConv(width, width, width, KERNEL, stride=2)
        self.scale = Scale(config, num_coarser - 1)
        self.grow_rows = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.grow = nn.ConvTranspose2d(width, width, 2, stride=2)

    def forward(self, u: Tensor, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps both streams, (B, C, H, W) each, to the same shapes."""
        context = context[:, :, ::2, ::2]
        u, x = self.scale(self.shrink_rows(u), self.shrink(x, context), context)
        return self.grow_rows(u), self.grow(x)

    def new_cache(self, batch: int, width: int) -> CoarserCache:
        """The cache before the first row of maps with `width` columns at the finer scale."""
        zeros = self.grow.weight.new_zeros
        return CoarserCache(
            rows=self.shrink_rows.new_window(batch, width),
            positions=self.shrink.new_cache(batch, width),
            scale=self.scale.new_cache(batch, width // 2),
            upsampled_rows=zeros(batch, self.width, 2, width),
            upsampled=zeros(batch, self.width, 2, width),
        )

    def start_row(self, cache: CoarserCache, u: Tensor, context: Tensor, row: int) -> Tensor:
        """One row of `u`, (B, C, 1, W) to the same shape; the coarser row at every second call.

        Arguments:
            context: of the coarser row, (B, X, 1, W / 2 or 1).
            row: index of the row at the finer scale.
        """
        push(cache.rows, u, dim=2)
        self.shrink.start_row(cache.positions, None if row % 2 else context)
        if row % 2 == 0:
            coarse = self.shrink_rows.step(cache.rows)
            coarse = self.scale.start_row(cache.scale, coarse, context, row // 2)
            cache.upsampled_rows.copy_(self.grow_rows(coarse))
        return cache.upsampled_rows[:, :, row % 2 : row % 2 + 1]

    def step(
        self, cache: CoarserCache, x: Tensor, position: tuple[int, int], column: Tensor
    ) -> Tensor:
        """One position of `l`, (B, C) to (B, C); the coarser position at every fourth.

        The arguments are those of `Scale.step`, at the finer scale.
        """
        row, index = position
        self.shrink.push_input(cache.positions, x, column)
        if row % 2 == 0 and index % 2 == 0:
            coarse_column = column // 2
            coarse = self.shrink.output_at(cache.positions, coarse_column)
            coarse_position = (row // 2, index // 2)
            coarse = self.scale.step(cache.scale, coarse, coarse_position, coarse_column)
            patch = self.grow(coarse[:, :, None, None])
            store(cache.upsampled, 3, torch.cat([column, column + 1]), patch)
        return cache.upsampled[:, :, row % 2].index_select(2, column)[..., 0]


class PixelCNNPP(Network[PixelCNNPPCache]):
    """The network of a `PixelCNNPPConfig`, for maps of grid (H, W).

    Raises:
        ValueError: the grid cannot be halved as often as the scales need.
    """

    def __init__(self, config: PixelCNNPPConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        self.factor = 2 ** (config.num_scales - 1)
        if grid[0] % self.factor or grid[1] % self.factor:
            raise ValueError(
                f"PixelCNN++ with {config.num_scales} scales needs sides that are multiples of "
                f"{self.factor}, got {grid[0]}x{grid[1]}; use fewer scales or another size."
            )
        self.grid, self.num_features = grid, config.channels
        self.first_rows = VerticalConv(config.channels, config.channels, 2, 3)
        self.first = PastConv(config.channels, config.channels, 3)
        self.scale = Scale(config, config.num_scales - 1)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        u = self.first_rows(shift_down(values))
        _, x = self.scale(u, self.first(values), context)
        return F.elu(x)

    def new_cache(self, batch: int) -> PixelCNNPPCache:
        """The cache before the first position."""
        width = self.grid[1]
        return PixelCNNPPCache(
            rows=self.first_rows.new_window(batch, width),
            first=self.first.new_cache(batch, width),
            scale=self.scale.new_cache(batch, width),
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """Whether a row starts, and the offset within a position of the coarsest scale."""
        row, column = divmod(position.index, position.width)
        return position.starts_row, row % self.factor, column % self.factor

    def step(
        self, cache: PixelCNNPPCache, previous: Tensor, context: Tensor, position: RasterPosition
    ) -> Tensor:
        """Features (B, C) of one position."""
        row, column = divmod(position.index, position.width)
        x = self.first.step(cache.first, previous, position)
        if position.starts_row:
            push(cache.rows, cache.first.rows[:, :, -1:], dim=2)
            u = self.first_rows.step(cache.rows)
            self.scale.start_row(cache.scale, u, context_row(context, position.row), row)
        x = self.scale.step(cache.scale, x, (row, column), position.column)
        return F.elu(x)
