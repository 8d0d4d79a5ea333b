"""PixelCNN++: two streams through three scales, with shortcuts (arXiv 1701.05517, Sec. 2.3, 2.4).

The stream `u` sees the rows above; the stream `l` the row to the left and, layer by layer, `u`.
Both go down to a quarter of the sides and up again, and each layer on the way up also sees one on
the way down. Layers are gated and residual on a doubled ELU:

    x + a * sigmoid(b),  (a, b) = conv(dropout(elu2(conv(elu2(x)) + shortcuts)) + U context

Rows of `u` are computed once, when a row begins; a coarse row or position once for the two rows or
four positions that share it. Weights are plain (the paper normalises them) and growing uses 2x2
filters in both streams (the paper 2x3 in `u`).

Legend: `B` batch, `C` channels, `X` context channels, `H W` grid, of this scale.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import (
    PastConv,
    Place,
    RasterCache,
    RasterConv,
    VerticalConv,
    pointwise,
    push,
    row_of,
    shift_down,
)
from vqvae2.priors.network import Network, PriorConfig, require_positive


@dataclass(frozen=True, kw_only=True)
class PixelCNNPPConfig(PriorConfig):
    """The architecture; the paper's has 5 layers and 160 to 192 channels.

    Arguments:
        channels: C.
        num_layers: layers a scale and direction.
        num_scales: the grid's sides must be multiples of 2 to the power of one less.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: inside each layer.
    """

    kind: Literal["pixelcnnpp"] = "pixelcnnpp"
    channels: int = 64
    num_layers: int = 3
    num_scales: int = 3
    num_conditioning_blocks: int = 4
    dropout: float = 0.5

    def __post_init__(self) -> None:
        """Refuses what cannot be built."""
        require_positive(
            channels=self.channels, num_layers=self.num_layers, num_scales=self.num_scales
        )

    def network(self, grid: tuple[int, int]) -> "PixelCNNPP":
        """The network for maps of grid (H, W)."""
        return PixelCNNPP(self, grid)


@dataclass
class ScaleCache:
    """What one scale keeps.

    Arguments:
        rows: two windows (B, 2C, 2, W) for each layer of `u`.
        positions: two caches for each layer of `l`.
        coarser: of the coarser scales.
    """

    rows: list[tuple[Tensor, Tensor]]
    positions: list[tuple[RasterCache, RasterCache]]
    coarser: "CoarserCache | None"


@dataclass
class CoarserCache:
    """What the way to a coarser scale and back keeps.

    Arguments:
        rows: of `u` that the next coarser row comes from, (B, C, 2, W).
        positions: of `l` that the next coarser position comes from.
        scale: of the coarser scale.
        grown_rows, grown: what coarser rows and positions mean here, (B, C, 2, W): of two rows.
    """

    rows: Tensor
    positions: RasterCache
    scale: ScaleCache
    grown_rows: Tensor
    grown: Tensor


@dataclass
class PixelCNNPPCache:
    """State between two steps; `rows` are the last values' rows, (B, C, 2, W)."""

    place: Place
    context: Tensor
    rows: Tensor
    first: RasterCache
    scale: ScaleCache


def elu2(x: Tensor) -> Tensor:
    """ELU of x and of -x, (B, 2C, ...): nothing is lost by being negative."""
    return F.elu(torch.cat([x, -x], dim=1))


class RowLayer(nn.Module):
    """A layer of `u`: from its own rows and, on the way up, the shortcut's."""

    def __init__(self, channels: int, dropout: float, shortcut: bool) -> None:
        super().__init__()
        self.first = VerticalConv(2 * channels, channels, 2, 3)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1) if shortcut else None
        self.second = VerticalConv(2 * channels, 2 * channels, 2, 3)
        self.context = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self._hidden(self.first(elu2(u)), skip)
        return u + F.glu(self.second(h) + self.context(context), dim=1)

    def new_cache(self, batch: int, width: int) -> tuple[Tensor, Tensor]:
        """The state before the first row."""
        return self.first.new_window(batch, width), self.second.new_window(batch, width)

    def step(
        self, windows: tuple[Tensor, Tensor], u: Tensor, context: Tensor, skip: Tensor | None
    ) -> Tensor:
        """One row, (B, C, 1, W) to the same shape."""
        before, after = windows
        push(before, elu2(u), dim=2)
        push(after, self._hidden(self.first.step(before), skip), dim=2)
        return u + F.glu(self.second.step(after) + self.context(context), dim=1)

    def _hidden(self, h: Tensor, skip: Tensor | None) -> Tensor:
        if self.shortcut is not None and skip is not None:
            h = h + self.shortcut(elu2(skip))
        return cast(Tensor, self.dropout(elu2(h)))


class PositionLayer(nn.Module):
    """A layer of `l`: from itself, from `u`, and, on the way up, from the shortcut."""

    def __init__(self, channels: int, dropout: float, shortcut: bool) -> None:
        super().__init__()
        see = {"above": 1, "left": 1, "right": 0}
        self.first = RasterConv(2 * channels, channels, channels, **see)
        self.from_rows = nn.Conv2d(2 * channels, channels, 1)
        self.shortcut = nn.Conv2d(2 * channels, channels, 1) if shortcut else None
        self.second = RasterConv(2 * channels, 2 * channels, channels, **see)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, u: Tensor, context: Tensor, skip: Tensor | None) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self.first(elu2(x), context) + self.from_rows(elu2(u))
        if self.shortcut is not None and skip is not None:
            h = h + self.shortcut(elu2(skip))
        return x + F.glu(self.second(self.dropout(elu2(h)), context), dim=1)

    def new_cache(self, batch: int, width: int) -> tuple[RasterCache, RasterCache]:
        """The state before the first row."""
        return self.first.new_cache(batch, width), self.second.new_cache(batch, width)

    def begin_row(
        self, caches: tuple[RasterCache, RasterCache], u: Tensor, context: Tensor
    ) -> None:
        """Computes what `u` (B, C, 1, W), context and the rows above mean for all columns."""
        first, second = caches
        self.first.begin_row(first, context)
        self.second.begin_row(second, context)
        first.above.add_(self.from_rows(elu2(u))[:, :, 0].transpose(1, 2))

    def step(
        self,
        caches: tuple[RasterCache, RasterCache],
        x: Tensor,
        column: Tensor,
        skip: Tensor | None,
    ) -> Tensor:
        """One position, (B, C) to (B, C)."""
        first, second = caches
        h = self.first.step(first, elu2(x), column)
        if self.shortcut is not None and skip is not None:
            h = h + pointwise(self.shortcut, elu2(skip))
        return x + F.glu(self.second.step(second, elu2(h), column), dim=1)


class Scale(nn.Module):
    """Layers at one resolution, the coarser scales between those down and those up."""

    coarser: "Coarser | None"

    def __init__(self, config: PixelCNNPPConfig, num_coarser: int) -> None:
        super().__init__()
        width, dropout = config.channels, config.dropout
        num_up = config.num_layers + (num_coarser > 0)
        directions = [False] * config.num_layers + [True] * num_up
        self.num_down = config.num_layers
        self.rows = nn.ModuleList(RowLayer(width, dropout, up) for up in directions)
        self.positions = nn.ModuleList(PositionLayer(width, dropout, up) for up in directions)
        self.coarser = Coarser(config, num_coarser) if num_coarser else None

    def forward(self, u: Tensor, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams' maps, (B, C, H, W) each, through this scale and all coarser ones."""
        layers, skips = self._layers(), [(u, x)]
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
        """The state before the first row of maps W wide."""
        layers, coarser = self._layers(), self.coarser
        return ScaleCache(
            rows=[rows.new_cache(batch, width) for rows, _ in layers],
            positions=[positions.new_cache(batch, width) for _, positions in layers],
            coarser=None if coarser is None else coarser.new_cache(batch, width),
        )

    def begin_row(self, cache: ScaleCache, u: Tensor, context: Tensor, row: int) -> Tensor:
        """One row of `u`, (B, C, 1, W) to the same shape, and what `l` needs of it.

        Arguments:
            context: the row's, (B, X, 1, W or 1).
            row: its number at this scale.
        """
        layers = list(zip(self._layers(), cache.rows, cache.positions, strict=True))
        skips = [u]
        for (rows, positions), windows, caches in layers[: self.num_down]:
            u = rows.step(windows, u, context, None)
            positions.begin_row(caches, u, context)
            skips.append(u)
        if self.coarser is None or cache.coarser is None:
            skips.pop()
        else:
            u = self.coarser.begin_row(cache.coarser, u, context[..., ::2], row)
        for (rows, positions), windows, caches in layers[self.num_down :]:
            u = rows.step(windows, u, context, skips.pop())
            positions.begin_row(caches, u, context)
        return u

    def step(self, cache: ScaleCache, x: Tensor, place: tuple[int, int], column: Tensor) -> Tensor:
        """One position of `l`, (B, C) to (B, C).

        Arguments:
            place: its row and column at this scale.
            column: the column again, (1,) on the device.
        """
        layers = list(zip(self._layers(), cache.positions, strict=True))
        skips = [x]
        for (_, positions), caches in layers[: self.num_down]:
            x = positions.step(caches, x, column, None)
            skips.append(x)
        if self.coarser is None or cache.coarser is None:
            skips.pop()
        else:
            x = self.coarser.step(cache.coarser, x, place, column)
        for (_, positions), caches in layers[self.num_down :]:
            x = positions.step(caches, x, column, skips.pop())
        return x

    def _layers(self) -> list[tuple[RowLayer, PositionLayer]]:
        pairs = zip(self.rows, self.positions, strict=True)
        return cast(list[tuple[RowLayer, PositionLayer]], list(pairs))


class Coarser(nn.Module):
    """Both streams at half the sides: down, through the coarser scales, and up again."""

    def __init__(self, config: PixelCNNPPConfig, num_coarser: int) -> None:
        super().__init__()
        width = self.width = config.channels
        self.shrink_rows = VerticalConv(width, width, 2, 3, stride=2)
        self.shrink = RasterConv(width, width, width, above=1, left=1, right=0, stride=2)
        self.scale = Scale(config, num_coarser - 1)
        self.grow_rows = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.grow = nn.ConvTranspose2d(width, width, 2, stride=2)

    def forward(self, u: Tensor, x: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both streams' maps, (B, C, H, W) each."""
        context = context[:, :, ::2, ::2]
        u, x = self.scale(self.shrink_rows(u), self.shrink(x, context), context)
        return self.grow_rows(u), self.grow(x)

    def new_cache(self, batch: int, width: int) -> CoarserCache:
        """The state before the first row of maps W wide, here."""
        zeros = self.grow.weight.new_zeros
        return CoarserCache(
            rows=self.shrink_rows.new_window(batch, width),
            positions=self.shrink.new_cache(batch, width),
            scale=self.scale.new_cache(batch, width // 2),
            grown_rows=zeros(batch, self.width, 2, width),
            grown=zeros(batch, self.width, 2, width),
        )

    def begin_row(self, cache: CoarserCache, u: Tensor, context: Tensor, row: int) -> Tensor:
        """This scale's row of what the coarser one says; computed with every second row.

        Arguments: as of `Scale.begin_row`, but for the context, which is the coarser scale's.
        """
        push(cache.rows, u, dim=2)
        self.shrink.begin_row(cache.positions, None if row % 2 else context)
        if row % 2 == 0:
            coarse = self.shrink_rows.step(cache.rows)
            coarse = self.scale.begin_row(cache.scale, coarse, context, row // 2)
            cache.grown_rows.copy_(self.grow_rows(coarse))
        return cache.grown_rows[:, :, row % 2 : row % 2 + 1]

    def step(
        self, cache: CoarserCache, x: Tensor, place: tuple[int, int], column: Tensor
    ) -> Tensor:
        """This position of what the coarser scale says; computed with every fourth.

        Arguments: as of `Scale.step`.
        """
        row, number = place
        self.shrink.see(cache.positions, x, column)
        if row % 2 == 0 and number % 2 == 0:
            halved = column // 2
            coarse = self.shrink.at(cache.positions, halved)
            coarse = self.scale.step(cache.scale, coarse, (row // 2, number // 2), halved)
            patch = self.grow(coarse[:, :, None, None])
            cache.grown.index_copy_(3, torch.cat([column, column + 1]), patch)
        return cache.grown[:, :, row % 2].index_select(2, column)[..., 0]


class PixelCNNPP(Network):
    """See the file's text."""

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

    def new_cache(self, context: Tensor, batch: int) -> PixelCNNPPCache:
        """The state before the first position."""
        width = self.grid[1]
        return PixelCNNPPCache(
            place=Place.start(width, context.device),
            context=context,
            rows=self.first_rows.new_window(batch, width),
            first=self.first.new_cache(batch, width),
            scale=self.scale.new_cache(batch, width),
        )

    def phase(self, cache: PixelCNNPPCache) -> Hashable:
        """Where in a position of the coarsest scale, and does a row begin?"""
        row, column = divmod(cache.place.index, cache.place.width)
        return cache.place.begins_row, row % self.factor, column % self.factor

    def step(self, cache: PixelCNNPPCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        here = divmod(place.index, place.width)
        x = self.first.step(cache.first, before, place)
        if place.begins_row:
            push(cache.rows, cache.first.rows[:, :, -1:], dim=2)
            u = self.first_rows.step(cache.rows)
            self.scale.begin_row(cache.scale, u, row_of(cache.context, place.row), here[0])
        x = self.scale.step(cache.scale, x, here, place.column)
        place.advance()
        return F.elu(x)
