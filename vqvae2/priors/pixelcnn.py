"""PixelCNN: masked convolutions in residual blocks (PixelRNN, arXiv 1601.06759, Sec. 3.4).

A first convolution with "mask A" covers the past without the current position. Blocks with
"mask B" follow, which include it:

    x + conv1x1(relu(masked conv(relu(conv1x1(relu(x))))))

A masked convolution extends as many columns to the right as rows up. Positions to the upper right
at a flatter angle than that never reach the output: the blind spot that Gated PixelCNN removes.

Legend: `B` batch, `C` channels, `H W` grid.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, Interval, require_ranges
from vqvae2.nn.causal import RasterCache, RasterConv, RasterKernel, pointwise
from vqvae2.priors.network import PriorConfig, require_odd
from vqvae2.priors.stack import Layer, Stack


@dataclass(frozen=True, kw_only=True)
class PixelCNNConfig(PriorConfig):
    """The architecture of a PixelCNN.

    Arguments:
        channels: C, "2h" in the paper; the masked convolutions have C / 2 channels.
        num_layers: residual blocks.
        kernel: side of their masked filters, odd; the first convolution's is 7.
        dropout: before the last convolution of each block.
    """

    kind: Literal["pixelcnn"] = "pixelcnn"
    channels: Annotated[int, Interval("[2, inf)")] = 128
    num_layers: AtLeast1 = 12
    kernel: AtLeast1 = 3

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A prior's ", self)
        require_odd(self.kernel)

    def network(self, grid: tuple[int, int]) -> Stack:
        """The network for maps of grid (H, W)."""
        blocks = (MaskedBlock(self) for _ in range(self.num_layers))
        return Stack(blocks, self.channels, grid[1])


class MaskedBlock(Layer[RasterCache]):
    """A residual block around one masked convolution."""

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        width, half, side = config.channels, config.channels // 2, config.kernel // 2
        self.narrow = nn.Conv2d(width, half, 1)
        self.conv = RasterConv(half, half, width, RasterKernel(above=side, left=side, right=side))
        self.widen = nn.Conv2d(half, width, 1)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        h = self.conv(F.relu(self.narrow(F.relu(x))), context)
        return x + self.widen(self.dropout(F.relu(h)))

    def new_cache(self, batch: int, width: int) -> RasterCache:
        """The cache before the first row."""
        return self.conv.new_cache(batch, width)

    def start_row(self, cache: RasterCache, context: Tensor) -> None:
        """Convolves the rows above, once for all columns."""
        self.conv.start_row(cache, context)

    def step(self, cache: RasterCache, x: Tensor, column: Tensor) -> Tensor:
        """One position, (B, C) to (B, C)."""
        h = self.conv.step(cache, F.relu(pointwise(self.narrow, F.relu(x))), column)
        return x + pointwise(self.widen, F.relu(h))
