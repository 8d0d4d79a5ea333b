"""Networks that are one stack: a first layer on the past alone, then layers one after the other.

PixelCNN and the two LSTMs of PixelRNN (arXiv 1601.06759) differ in their layers alone. As there, a
7x7 convolution of "mask A" comes first, and two 1x1 convolutions with ReLUs last.

Legend: `B` batch, `C` channels, `X` context channels, `H W` grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import PastConv, Place, RasterCache, pointwise, row_of
from vqvae2.priors.network import Network

FIRST_KERNEL = 7
OUTPUT_LAYERS = 2


class Layer(nn.Module, ABC):
    """A layer that sees a position, the row to its left, and the rows above."""

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape; context (B, X, H or 1, W or 1)."""

    @abstractmethod
    def new_cache(self, batch: int, width: int) -> Any:
        """The state before the first row of maps W wide."""

    @abstractmethod
    def begin_row(self, cache: Any, context: Tensor) -> None:
        """Closes the row before; computes what the new one's columns share.

        Arguments:
            context: the new row's, (B, X, 1, W or 1).
        """

    @abstractmethod
    def step(self, cache: Any, x: Tensor, column: Tensor) -> Tensor:
        """The position at `column`, (1,) int64: x (B, C) to the same shape."""


@dataclass
class StackCache:
    """State between two steps; `layers` holds each layer's own."""

    place: Place
    context: Tensor
    first: RasterCache
    layers: list[Any]


class Stack(Network):
    """See the file's text.

    Arguments:
        layers: the stack.
        channels: C.
        grid: (H, W).
    """

    def __init__(self, layers: Sequence[Layer], channels: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.num_features = grid, channels
        self.first = PastConv(channels, channels, FIRST_KERNEL)
        self.layers = nn.ModuleList(layers)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(OUTPUT_LAYERS))

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, C, H, W)."""
        x: Tensor = self.first(values)
        for layer in self.layers:
            x = layer(x, context)
        for conv in self.output:
            x = conv(F.relu(x))
        return F.relu(x)

    def new_cache(self, context: Tensor, batch: int) -> StackCache:
        """The state before the first position."""
        width = self.grid[1]
        return StackCache(
            place=Place.start(width, context.device),
            context=context,
            first=self.first.new_cache(batch, width),
            layers=[layer.new_cache(batch, width) for layer in self._layers()],
        )

    def phase(self, cache: StackCache) -> Hashable:
        """Does a row begin?"""
        return cache.place.begins_row

    def step(self, cache: StackCache, before: Tensor) -> Tensor:
        """Features (B, C) of the next position."""
        place = cache.place
        if place.begins_row:
            context = row_of(cache.context, place.row)
            for layer, state in zip(self._layers(), cache.layers, strict=True):
                layer.begin_row(state, context)
        x = self.first.step(cache.first, before, place)
        for layer, state in zip(self._layers(), cache.layers, strict=True):
            x = layer.step(state, x, place.column)
        for conv in self.output:
            x = pointwise(cast(nn.Conv2d, conv), F.relu(x))
        place.advance()
        return F.relu(x)

    def _layers(self) -> list[Layer]:
        return cast(list[Layer], list(self.layers))
