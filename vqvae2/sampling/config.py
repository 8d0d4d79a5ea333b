"""How codes are sampled from a prior's distributions."""

from dataclasses import dataclass
from typing import Annotated

from vqvae2.configuration import Interval, require_ranges


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Changes to a distribution before a code is sampled; the defaults change nothing.

    Arguments:
        temperature: logits are divided by it; 0 takes the most probable code.
        top_k: keep the K most probable codes; None keeps all.
        top_p: keep the fewest codes that together have this probability; 1 keeps all.
    """

    temperature: Annotated[float, Interval("[0, inf)", "0 takes the most probable code")] = 1.0
    top_k: Annotated[int, Interval("[1, inf)", "leave it out to keep all codes")] | None = None
    top_p: Annotated[float, Interval("(0, 1]", "1 keeps all codes")] = 1.0

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("", self)
