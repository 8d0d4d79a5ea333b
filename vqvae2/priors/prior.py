"""What every prior promises: one distribution, computed for a whole map or code by code.

    p(codes | labels, coarser codes) = prod_k p(code_k | codes before k in raster order, context)

Legend: `B` batch, `K` codes, `H W` grid, `P` likelihood parameters a position.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vqvae2.likelihood import Categorical


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a prior is a distribution over, and given what.

    Arguments:
        num_codes: K, of this level and all coarser ones.
        grid: (H, W) of this level.
        coarser_grids: (H, W) of each coarser level, coarsest first; () for the coarsest.
        num_classes: labels are in [0, num_classes); pictures without labels are all of class 0.
    """

    num_codes: int
    grid: tuple[int, int]
    coarser_grids: tuple[tuple[int, int], ...] = ()
    num_classes: int = 1

    @property
    def num_positions(self) -> int:
        """Codes a map."""
        return self.grid[0] * self.grid[1]

    def check(self, labels: Tensor, coarser: Sequence[Tensor]) -> None:
        """Raises ValueError unless labels (B,) and coarser codes (B, H, W) fit."""
        grids = tuple(tuple(codes.shape[1:]) for codes in coarser)
        if grids != self.coarser_grids:
            raise ValueError(
                f"This prior is conditioned on codes of grids {self.coarser_grids}, coarsest "
                f"first, got {grids}."
            )
        for name, values, limit in [
            ("Labels", labels, self.num_classes),
            *(("Coarser codes", codes, self.num_codes) for codes in coarser),
        ]:
            if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < limit:
                raise ValueError(
                    f"{name} must be in [0, {limit}), got {int(values.min())} to "
                    f"{int(values.max())}."
                )


class Prior(nn.Module, ABC):
    """An autoregressive distribution over the codes of one level."""

    config: Any
    domain: Domain

    @abstractmethod
    def embed_context(self, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Embeds what the prior is conditioned on, once.

        Arguments:
            labels: (B,) int64.
            coarser: codes (B, H, W) int64 of every coarser level, coarsest first.

        Returns:
            The context, in whatever shape `forward` and `new_cache` of this prior take.
        """

    @abstractmethod
    def forward(self, codes: Tensor, context: Tensor) -> Tensor:
        """Likelihood parameters (B, P, H, W) of whole maps (B, H, W), for training."""

    @abstractmethod
    def new_cache(self, context: Tensor, batch: int) -> Any:
        """The state that `step` advances, at the first position of `batch` maps."""

    @abstractmethod
    def step(self, cache: Any, previous: Tensor) -> Tensor:
        """Likelihood parameters (B, P) of the next position; advances `cache`.

        Arguments:
            cache: from `new_cache`, owned by the caller.
            previous: (B,) int64, the code at the position before; ignored at the first.
        """

    def log_prob(self, codes: Tensor, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Log-probability in nats, (B, H, W), of each code given all before it."""
        context = self.embed_context(labels, coarser)
        return Categorical.log_prob(self(codes, context), codes)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device
