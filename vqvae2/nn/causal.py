"""Causal convolutions over a map in raster order, without a blind spot.

Gated PixelCNN (arXiv 1606.05328, Sec. 2.2) splits the past of a position into the rows above it
and the columns left of it, each seen by a stack of its own:

    VerticalConv    row r sees rows <= r, columns both ways
    HorizontalConv  column c sees columns <= c of its own row

Both see their own position; `shift_down` and `shift_raster` take it away once, at the input, so
every later layer may keep it. Each has two modes that compute the same: `forward` on whole maps,
and `step` on a window of the last rows or columns.

Legend: `B` batch, `C` channels in, `O` channels out, `H W` grid, `R` rows and `L` columns of a
window.
"""

import math

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


class VerticalConv(nn.Module):
    """A convolution over the current row and those above it.

    Arguments:
        in_channels: C.
        out_channels: O.
        kernel: columns seen, odd; (kernel + 1) / 2 rows are seen.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.rows, self.pad = (kernel + 1) // 2, kernel // 2
        self.conv = nn.Conv2d(in_channels, out_channels, (self.rows, kernel))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, O, H, W)."""
        return self.step(F.pad(x, (0, 0, self.rows - 1, 0)))

    def step(self, window: Tensor) -> Tensor:
        """The newest row, (B, O, 1, W), from the last R rows (B, C, R, W), newest last."""
        out: Tensor = self.conv(F.pad(window, (self.pad, self.pad, 0, 0)))
        return out


class HorizontalConv(nn.Module):
    """A convolution over the current column and those left of it.

    Arguments:
        in_channels: C.
        out_channels: O.
        kernel: as of the vertical stack, odd; L = (kernel + 1) / 2 columns are seen.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.columns = (kernel + 1) // 2
        # Kept in the layout of `step`, one matrix, because `step` runs once a position.
        bound = 1 / math.sqrt(self.columns * in_channels)
        weight = torch.empty(out_channels, self.columns, in_channels)
        self.weight = nn.Parameter(weight.uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, O, H, W)."""
        kernel = self.weight.transpose(1, 2).unsqueeze(2)
        return F.conv2d(F.pad(x, (self.columns - 1, 0)), kernel, self.bias)

    def step(self, window: Tensor) -> Tensor:
        """The newest position, (B, O), from the last L columns (B, L, C), newest last."""
        return F.linear(window.flatten(1), self.weight.flatten(1), self.bias)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1x1 convolution applied to one position, (B, C) to (B, O)."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)
