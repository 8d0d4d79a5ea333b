"""Usage and perplexity of a codebook, counted over a whole set, never over a batch.

A batch of b codes cannot show a perplexity above b, so averages over batches depend on the batch.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class CodeUsage:
    """How often each of K codes occurred: (K,) int64 on the CPU."""

    counts: Tensor

    @classmethod
    def of(cls, num_codes: int) -> "CodeUsage":
        """Nothing counted yet."""
        return cls(torch.zeros(num_codes, dtype=torch.int64))

    def add(self, codes: Tensor) -> None:
        """Counts codes of any shape."""
        self.counts += torch.bincount(codes.flatten(), minlength=len(self.counts)).cpu()

    @property
    def used(self) -> int:
        """Codes that occurred."""
        return int((self.counts > 0).sum())

    @property
    def share_used(self) -> float:
        """Part of the codes that occurred."""
        return self.used / len(self.counts)

    @property
    def perplexity(self) -> float:
        """exp of the entropy: how many equally frequent codes would carry as much."""
        share = self.counts.double() / self.counts.sum().clamp_min(1)
        return float(torch.special.entr(share).sum().exp())
