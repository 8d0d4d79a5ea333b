"""What every architecture of the family promises: features of a position from all before it.

Two modes of one definition: `forward` computes a whole map at once, for training; `step` goes
position by position, for sampling, and computes each activation once.

Legend: `B` batch, `C` channels of the embedded values, `F` features, `H W` grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, Protocol

from torch import Tensor, nn

from vqvae2.nn.causal import Place


class NetworkCache(Protocol):
    """The state of an architecture between two steps; all but `place` is its own affair."""

    place: Place


class Network(nn.Module, ABC):
    """The autoregressive network inside a prior."""

    num_features: int

    @abstractmethod
    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Features (B, F, H, W), each of the positions before it in raster order.

        Arguments:
            values: embedded values (B, C, H, W), not shifted.
            context: (B, C, H, W), or (B, C, 1, 1) where all positions share it.
        """

    @abstractmethod
    def phase(self, cache: Any) -> Hashable:
        """What decides on the host which operations the next step is made of.

        Steps of equal phase do the same operations on the same tensors, whatever their position,
        so that a device can record them once.
        """

    @abstractmethod
    def new_cache(self, context: Tensor, batch: int) -> Any:
        """The state that `step` advances, at the first position of `batch` maps."""

    @abstractmethod
    def step(self, cache: Any, before: Tensor) -> Tensor:
        """Features (B, F) of the next position; advances `cache`.

        Arguments:
            cache: from `new_cache`, owned by the caller; its tensors keep their shapes.
            before: (B, C), the embedded values of the position before; zeros at the first.
        """


class PriorConfig(ABC):
    """The architecture of a prior: a frozen dataclass that builds its network.

    Each architecture has one subclass, in its own file, whose field `kind` names it. The fields
    below are those that every architecture has.

    Arguments:
        channels: C, channels of the embedded values and of the context.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: probability of zeroing an activation in training.
    """

    channels: int
    num_conditioning_blocks: int
    dropout: float

    @abstractmethod
    def network(self, grid: tuple[int, int]) -> Network:
        """The network for maps of grid (H, W)."""


def require_positive(**numbers: int) -> None:
    """Raises ValueError unless all are at least 1."""
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"A prior's {name} must be at least 1, got {number}.")


def require_odd(kernel: int) -> None:
    """Raises ValueError for filters without a centre."""
    if kernel % 2 == 0 or kernel < 1:
        raise ValueError(f"The kernel of a causal filter must be odd, got {kernel}.")
