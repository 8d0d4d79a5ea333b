"""Usage and perplexity of a codebook, counted over a complete set.

A batch of b codes cannot have a perplexity above b, so averages over batches depend on their size.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.transfers import to_device


@dataclass
class CodeUsage:
    """The number of occurrences of each of K codes, (K,) int64, on the device of the codes."""

    counts: Tensor

    @classmethod
    def of(cls, num_codes: int) -> "CodeUsage":
        """The usage of a codebook before any code is counted."""
        return cls(torch.zeros(num_codes, dtype=torch.int64))

    def add(self, codes: Tensor) -> None:
        """Counts codes of any shape, without waiting for their device.

        Not by `bincount`, which reads the largest code.
        """
        flat = codes.flatten()
        self.counts = to_device(self.counts, codes.device)
        self.counts.index_add_(0, flat, torch.ones_like(flat))

    @property
    def used(self) -> int:
        """Number of codes that occur."""
        return int((self.counts > 0).sum())

    @property
    def share_used(self) -> float:
        """Share of codes that occur."""
        return self.used / len(self.counts)

    @property
    def perplexity(self) -> float:
        """exp of the entropy: the number of equally frequent codes of the same entropy."""
        share = self.counts.double() / self.counts.sum().clamp_min(1)
        return float(torch.special.entr(share).sum().exp())
