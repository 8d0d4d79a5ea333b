"""Networks that are a single stack: a convolution over the past, then layers in sequence.

PixelCNN and the two LSTMs of PixelRNN (arXiv 1601.06759) differ only in their layers. As in the
paper, a 7x7 convolution with "mask A" comes first, and two 1x1 convolutions with ReLUs come last.

Legend: `B` batch, `C` channels, `X` context channels, `H W` grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Generic

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import PastConv, RasterCache, RasterPosition, context_row, pointwise
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block
from vqvae2.priors.network import Cache, Network

FIRST_KERNEL = 7
NUM_OUTPUT_LAYERS = 2


class Layer(Block, ABC, Generic[Cache]):
    """A causal layer: a position depends on itself, the row to its left, and the rows above.

    Its parameter `Cache` is the type of its state between two steps.
    """

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape, given context (B, X, H or 1, W or 1)."""

    @abstractmethod
    def new_cache(self, batch: int, width: int) -> Cache:
        """The cache before the first row of maps with `width` columns."""

    @abstractmethod
    def start_row(self, cache: Cache, context: Tensor) -> None:
        """Finishes the previous row and computes what the columns of the next one share.

        Arguments:
            context: of the next row, (B, X, 1, W or 1).
        """

    @abstractmethod
    def step(self, cache: Cache, x: Tensor, column: Tensor) -> Tensor:
        """The position at `column`, (1,) int64: x (B, C) to the same shape."""


@dataclass
class StackCache:
    """The state of a `Stack` between two steps.

    Arguments:
        first: of the first convolution.
        layers: of each layer.
    """

    first: RasterCache
    layers: list[object]


class Stack(Network[StackCache]):
    """A network of layers in sequence.

    Arguments:
        layers: between the first convolution and the output layers.
        channels: C.
        width: W.
    """

    def __init__(self, layers: Iterable[Layer[Any]], channels: int, width: int) -> None:
        super().__init__()
        self.width, self.num_features = width, channels
        self.first = PastConv(channels, channels, FIRST_KERNEL)
        self.layers = Modules(layers)
        self.output = Modules(nn.Conv2d(channels, channels, 1) for _ in range(NUM_OUTPUT_LAYERS))

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x: Tensor = self.first(values)
        for layer in self.layers:
            x = layer(x, context)
        for conv in self.output:
            x = conv(F.relu(x))
        return F.relu(x)

    def new_cache(self, batch: int) -> StackCache:
        """The cache before the first position."""
        return StackCache(
            first=self.first.new_cache(batch, self.width),
            layers=[layer.new_cache(batch, self.width) for layer in self.layers],
        )

    def phase(self, position: RasterPosition) -> Hashable:
        """Whether a row starts."""
        return position.starts_row

    def step(
        self, cache: StackCache, previous: Tensor, context: Tensor, position: RasterPosition
    ) -> Tensor:
        """Features (B, C) of one position."""
        if position.starts_row:
            row = context_row(context, position.row)
            for layer, state in zip(self.layers, cache.layers, strict=True):
                layer.start_row(state, row)
        x = self.first.step(cache.first, previous, position)
        for layer, state in zip(self.layers, cache.layers, strict=True):
            x = layer.step(state, x, position.column)
        for conv in self.output:
            x = pointwise(conv, F.relu(x))
        return F.relu(x)
