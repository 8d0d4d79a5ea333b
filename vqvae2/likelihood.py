"""Likelihoods: how the parameters that a prior puts out become probabilities and samples.

Legend: `B` batch, `K` codes, `H W` grid, `P` likelihood parameters (K logits here).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How codes are drawn from a distribution; the defaults change nothing.

    Arguments:
        temperature: logits are divided by it; 0 takes the most probable code.
        top_k: keep the K most probable codes; None keeps all.
        top_p: keep the fewest codes that together have this probability; 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that no distribution has."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"Temperature must be 0 (most probable code) or more, got {self.temperature}."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top-k must keep at least 1 code, got {self.top_k}; leave it out to keep all."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be in (0, 1], got {self.top_p}; 1 keeps all codes.")


class Categorical:
    """K codes with K logits; also called softmax likelihood."""

    @staticmethod
    def log_prob(params: Tensor, codes: Tensor) -> Tensor:
        """Log-probability in nats, (B, H, W), of codes (B, H, W) under logits (B, K, H, W)."""
        dtype = torch.promote_types(params.dtype, torch.float32)
        return -F.cross_entropy(params.to(dtype), codes, reduction="none")

    @staticmethod
    def sample(params: Tensor, uniform: Tensor, draw: Draw) -> Tensor:
        """Codes (B,) from logits (B, K) by inverting the distribution function.

        Arguments:
            uniform: (B,) in [0, 1), float64 where there is: each picture's own noise, so that its
                code does not depend on its neighbours in the batch.
        """
        if draw.temperature == 0:
            return params.argmax(dim=1)
        probabilities = kept(params.to(uniform.dtype) / draw.temperature, draw).softmax(dim=1)
        cumulative = probabilities.cumsum(dim=1)
        target = uniform[:, None] * cumulative[:, -1:]
        codes = torch.searchsorted(cumulative, target, right=True)[:, 0]
        # uniform < 1, but its product with the last sum may round to that sum.
        return codes.clamp_max(params.shape[1] - 1)


def kept(logits: Tensor, draw: Draw) -> Tensor:
    """Logits (B, K) with -inf for the codes that top-k and top-p leave out."""
    if draw.top_k is not None and draw.top_k < logits.shape[1]:
        smallest = logits.topk(draw.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if draw.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        probabilities = ordered.softmax(dim=1)
        # What stands before a code decides, so that the most probable one always stays.
        beyond = probabilities.cumsum(dim=1) - probabilities >= draw.top_p
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -math.inf)
    return logits
