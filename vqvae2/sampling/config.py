"""How codes are sampled from a prior's distributions."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Changes to a distribution before a code is sampled; the defaults change nothing.

    Arguments:
        temperature: logits are divided by it; 0 takes the most probable code.
        top_k: keep the K most probable codes; None keeps all.
        top_p: keep the fewest codes that together have this probability; 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Validates the configuration."""
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
