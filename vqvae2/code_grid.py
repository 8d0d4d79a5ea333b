"""One level of codes: how many codes there are, and the grid on which they lie."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class CodeGrid:
    """The shape of one level's code map.

    Arguments:
        num_codes: K; codes are integers in [0, K).
        height: H, rows of the map.
        width: W, columns of the map.
    """

    num_codes: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return self.height, self.width

    @property
    def num_positions(self) -> int:
        """Codes per map, H W."""
        return self.height * self.width

    @property
    def bits(self) -> float:
        """Bits per map when every code takes log2 K of them."""
        return self.num_positions * math.log2(self.num_codes)

    def __str__(self) -> str:
        return f"{self.height}x{self.width}, K = {self.num_codes}"
