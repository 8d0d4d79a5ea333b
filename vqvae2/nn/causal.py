"""Causal convolutions over a map in raster order, without a blind spot.

Gated PixelCNN (arXiv 1606.05328, Sec. 2.2) splits the past of a position into the rows above it
and the columns left of it:

    VerticalConv    row r sees rows <= r, columns both ways
    HorizontalConv  column c sees columns <= c of its own row
    RasterConv      both at once: rows above both ways, its own row to the left
    PastConv        the same without its own position ("mask A"): a network's first layer

All but the last see their own position; `shift_down` and `shift_raster` take it away once, at the
input, so every later layer may keep it. Each layer has two modes that compute the same: `forward`
on whole maps, and steps on windows of the last rows or columns. What the columns of a row have in
common is computed once, when the row begins.

Legend: `B` batch, `C` channels in, `O` channels out, `X` context channels, `H W` grid, `R` rows
and `L` columns of a window.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shift_down(x: Tensor) -> Tensor:
    """(B, C, H, W) moved down by a row; zeros come in at the top."""
    return F.pad(x, (0, 0, 1, 0))[:, :, :-1]


def shift_raster(x: Tensor) -> Tensor:
    """(B, C, H, W) moved on by a position in raster order; zeros come in at the first.

    A row's first column so gets the last of the row above: an attention that follows sees, in a
    position's own input, the code just before it, and in the others' all earlier ones.
    """
    return F.pad(x.flatten(2), (1, 0))[..., :-1].view_as(x)


def push(window: Tensor, new: Tensor, dim: int) -> None:
    """Drops the oldest slice of `window` along `dim` and appends `new`, in place."""
    kept = window.narrow(dim, 1, window.shape[dim] - 1)
    window.copy_(torch.cat([kept, new], dim=dim))


@dataclass
class Place:
    """Where in raster order a drawing is, on the host and as tensors on the device.

    The host's numbers decide what happens (does a row begin?); the tensors say where in a buffer,
    so that the device runs the same operations at every position and nobody waits for it.

    Arguments:
        index: positions done.
        width: W.
        row, column, position: of the next position, (1,) int64.
    """

    index: int
    width: int
    row: Tensor
    column: Tensor
    position: Tensor

    @classmethod
    def start(cls, width: int, device: torch.device) -> Self:
        """The first position."""
        zero = torch.zeros(1, dtype=torch.int64, device=device)
        return cls(0, width, zero, zero.clone(), zero.clone())

    @property
    def begins_row(self) -> bool:
        """Whether the next position is the first of its row."""
        return self.index % self.width == 0

    def advance(self) -> None:
        """Goes on to the next position."""
        self.index += 1
        self.position += 1
        self.row.copy_(self.position // self.width)
        self.column.copy_(self.position % self.width)


class VerticalConv(nn.Module):
    """A convolution over the current row and those above it.

    Arguments:
        in_channels: C.
        out_channels: O.
        rows: R, rows seen, the current one included.
        columns: columns seen, odd.
        stride: of the output's rows and columns in the input's.
    """

    def __init__(
        self, in_channels: int, out_channels: int, rows: int, columns: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.rows, self.pad = rows, columns // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (rows, columns), stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, O, H, W)."""
        return self.step(F.pad(x, (0, 0, self.rows - 1, 0)))

    def new_window(self, batch: int, width: int) -> Tensor:
        """The rows before the first: zeros (B, C, R, W)."""
        return self.conv.weight.new_zeros(batch, self.conv.in_channels, self.rows, width)

    def step(self, window: Tensor) -> Tensor:
        """The newest row, (B, O, 1, W), from the last R rows (B, C, R, W), newest last."""
        out: Tensor = self.conv(F.pad(window, (self.pad, self.pad, 0, 0)))
        return out


class HorizontalConv(nn.Module):
    """A convolution over the current column and those left of it.

    Arguments:
        in_channels: C.
        out_channels: O.
        columns: L, columns seen, the current one included.
        stride: of the output's rows and columns in the input's.
    """

    def __init__(self, in_channels: int, out_channels: int, columns: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.columns, self.stride = in_channels, columns, stride
        # (L, C, O), the layout of `step`, which runs once a position: one image is then a vector
        # times a matrix of contiguous rows, 1.6 times as fast as the other way round.
        bound = 1 / math.sqrt(self.columns * in_channels)
        weight = torch.empty(out_channels, self.columns, in_channels).uniform_(-bound, bound)
        self.weight = nn.Parameter(weight.permute(1, 2, 0).contiguous())
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, O, H, W)."""
        kernel = self.weight.permute(2, 1, 0).unsqueeze(2)
        return F.conv2d(F.pad(x, (self.columns - 1, 0)), kernel, self.bias, stride=self.stride)

    def new_window(self, batch: int) -> Tensor:
        """The columns before the first: zeros (B, L, C)."""
        return self.weight.new_zeros(batch, self.columns, self.in_channels)

    def step(self, window: Tensor) -> Tensor:
        """The newest position, (B, O), from the last L columns (B, L, C), newest last."""
        return torch.addmm(self.bias, window.flatten(1), self.weight.flatten(0, 1))


@dataclass
class RasterCache:
    """What `RasterConv` and `PastConv` keep of the past.

    Arguments:
        rows: finished rows of the input, (B, C, R, W), newest last.
        row: the input's current row as it comes, (B, C, 1, W).
        columns: the last columns of the current row, (B, L, C).
        above: what context and finished rows add to each column, (B, W, O).
    """

    rows: Tensor
    row: Tensor
    columns: Tensor
    above: Tensor


class RasterConv(nn.Module):
    """A convolution over the rows above and the current row to the left, biased by the context.

    Arguments:
        in_channels: C.
        out_channels: O.
        context_channels: X.
        above: R, rows seen above the current one; may be 0.
        left: columns seen left of the current one.
        right: columns seen right of it, in the rows above.
        stride: of the output's rows and columns in the input's; the context has the output's.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        context_channels: int,
        *,
        above: int,
        left: int,
        right: int,
        stride: int = 1,
    ) -> None:
        super().__init__()
        self.stride, self.num_above, self.sides = stride, above, (left, right)
        self.here = HorizontalConv(in_channels, out_channels, left + 1, stride)
        self.above: nn.Conv2d | None = None
        if above:
            kernel = (above, left + 1 + right)
            self.above = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, bias=False)
        self.context = nn.Conv2d(context_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, O, H, W) given context (B, X, H or 1, W or 1)."""
        out = cast(Tensor, self.here(x) + self.context(context))
        if self.above is None:
            return out
        height = x.shape[2]
        rows = F.pad(x, (*self.sides, self.num_above, 0))[:, :, : height - 1 + self.num_above]
        return out + cast(Tensor, self.above(rows))

    def new_cache(self, batch: int, width: int) -> RasterCache:
        """The state before the first row of maps W wide."""
        zeros, channels = self.here.weight.new_zeros, self.here.in_channels
        return RasterCache(
            rows=zeros(batch, channels, self.num_above, width),
            row=zeros(batch, channels, 1, width),
            columns=self.here.new_window(batch),
            above=zeros(batch, width // self.stride, self.here.bias.shape[0]),
        )

    def begin_row(self, cache: RasterCache, context: Tensor | None) -> None:
        """Closes the row before, and computes what it adds to the new one.

        Arguments:
            context: the new row's, (B, X, 1, W or 1); None for rows that a stride leaves out.
        """
        cache.columns.zero_()
        if self.above is not None:
            push(cache.rows, cache.row, dim=2)
        if context is None:
            return
        row: Tensor = self.context(context)
        if self.above is not None:
            row = row + self.above(F.pad(cache.rows, self.sides))
        cache.above.copy_(row[:, :, 0].transpose(1, 2).expand_as(cache.above))

    def step(self, cache: RasterCache, x: Tensor, column: Tensor) -> Tensor:
        """The position at `column`, (1,) int64: x (B, C) to (B, O)."""
        self.see(cache, x, column)
        return self.at(cache, column)

    def see(self, cache: RasterCache, x: Tensor, column: Tensor) -> None:
        """Takes the input at `column`."""
        push(cache.columns, x[:, None], dim=1)
        if self.above is not None:
            cache.row.index_copy_(3, column, x[:, :, None, None])

    def at(self, cache: RasterCache, column: Tensor) -> Tensor:
        """The output at `column` of the output's grid, (B, O); its inputs were seen."""
        return self.here.step(cache.columns) + cache.above.index_select(1, column)[:, 0]


class PastConv(nn.Module):
    """A convolution over the past alone, without the position itself: "mask A" of PixelCNN.

    Arguments:
        in_channels: C.
        out_channels: O.
        kernel: side of the unmasked filter, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        half = kernel // 2
        self.rows = VerticalConv(in_channels, out_channels, half, kernel)
        self.row = HorizontalConv(in_channels, out_channels, half)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W), not shifted, to (B, O, H, W)."""
        return cast(Tensor, self.rows(shift_down(x)) + self.row(shift_raster(x)))

    def new_cache(self, batch: int, width: int) -> RasterCache:
        """The state before the first row of maps W wide."""
        zeros, out_channels = self.row.weight.new_zeros, self.row.bias.shape[0]
        return RasterCache(
            rows=self.rows.new_window(batch, width),
            row=zeros(batch, self.row.in_channels, 1, width),
            columns=self.row.new_window(batch),
            above=zeros(batch, width, out_channels),
        )

    def step(self, cache: RasterCache, before: Tensor, place: Place) -> Tensor:
        """The next position, (B, O), from the input at the one before it, (B, C)."""
        last = (place.position - 1) % place.width
        cache.row.index_copy_(3, last, before[:, :, None, None])
        if place.begins_row:
            cache.columns.zero_()
            push(cache.rows, cache.row, dim=2)
            cache.above.copy_(self.rows.step(cache.rows)[:, :, 0].transpose(1, 2))
        push(cache.columns, before[:, None], dim=1)
        return self.row.step(cache.columns) + cache.above.index_select(1, place.column)[:, 0]


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution applied to one position, (B, C) to (B, O)."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def begin_rows(
    convs: Iterable[RasterConv], caches: Iterable[RasterCache], context: Tensor | None
) -> None:
    """`begin_row` of several layers, a cache each."""
    for conv, cache in zip(convs, caches, strict=True):
        conv.begin_row(cache, context)


def row_of(context: Tensor, row: Tensor) -> Tensor:
    """The row, (B, X, 1, W or 1), of a context (B, X, H or 1, W or 1)."""
    return context if context.shape[2] == 1 else context.index_select(2, row)
