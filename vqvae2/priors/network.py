"""The interface of every architecture: features of a position from all positions before it.

A network has two modes that compute the same: `forward` takes complete maps, for training; `step`
takes one position after the other, for sampling, and computes each activation once.

Legend: `B` batch, `C` channels of the embedded values, `F` features, `H W` grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from vqvae2.configuration import AtLeast0, AtLeast1, Probability
from vqvae2.nn.causal import RasterPosition

Cache = TypeVar("Cache")
"""A dataclass of tensors and of such dataclasses, also in lists and tuples, zero at the start.
Other objects in it hold views of tensors and no state."""


class Network(nn.Module, ABC, Generic[Cache]):
    """The autoregressive network of a prior, between the embedding and the head.

    Its parameter `Cache` is the type of its state between two steps.
    """

    num_features: int

    @abstractmethod
    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, F, H, W) of each position, from those before it in raster order.

        Arguments:
            values: embedded values (B, C, H, W), not shifted.
            context: (B, C, H, W), or (B, C, 1, 1) where all positions share it.
        """

    @abstractmethod
    def phase(self, position: RasterPosition) -> Hashable:
        """Identifies the operations of the step at `position`.

        Steps of equal phase run the same operations on the same tensors, whatever their position,
        so a CUDA graph that records one can replay the others.
        """

    @abstractmethod
    def new_cache(self, batch: int) -> Cache:
        """The cache before the first position of `batch` maps."""

    @abstractmethod
    def step(
        self, cache: Cache, previous: Tensor, context: Tensor, position: RasterPosition
    ) -> Tensor:
        """Features (B, F) of one position; positions come in raster order.

        Arguments:
            cache: from `new_cache`, owned by the caller; updated in place.
            previous: embedded values (B, C) of the position before; zeros at the first position.
            context: as of `forward`, for all positions.
            position: the position.
        """


def zero_state(cache: object) -> None:
    """Returns the cache of a network to its state before the first position, in place."""
    if isinstance(cache, Tensor):
        cache.zero_()
    elif isinstance(cache, list | tuple):
        for part in cache:
            zero_state(part)
    elif is_dataclass(cache):
        for field in fields(cache):
            zero_state(getattr(cache, field.name))


@dataclass(frozen=True, kw_only=True)
class PriorConfig(ABC):
    """The architecture of a prior, which builds its network.

    Each architecture has one subclass, in its own file, whose field `kind` names it. The fields
    below are those that every architecture has.

    Arguments:
        channels: C, channels of the embedded values and of the context.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: probability of zeroing an activation in training.
    """

    channels: AtLeast1 = 128
    num_conditioning_blocks: AtLeast0 = 4
    dropout: Probability = 0.1

    @abstractmethod
    def network(self, grid: tuple[int, int]) -> Network[Any]:
        """The network for maps of grid (H, W)."""


def require_odd(kernel: int) -> None:
    """Raises ValueError for a filter without a centre."""
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"The kernel of a causal filter must be odd, got {kernel}.")
