"""Embeds values: the codes of a map, or the colours of its pixels.

Legend: `B` batch, `C` channels, `K` values, `H W` grid.
"""

import torch
from torch import Tensor, nn

from vqvae2.priors.domain import Domain

ROUGHNESS = 0.1
"""How far an intensity's first embedding lies off the line between black and white."""


class ValueEmbedding(nn.Module):
    """A vector a value; a pixel is the sum of its colours' vectors.

    Arguments:
        domain: says which values there are.
        channels: C.
    """

    def __init__(self, domain: Domain, channels: int) -> None:
        super().__init__()
        self.domain = domain
        self.vectors = nn.Embedding(domain.channels * domain.grid.num_codes, channels)
        if domain.ordered:
            self._start_in_order()

    def forward(self, values: Tensor) -> Tensor:
        """Maps (B, H, W) or (B, H, W, channels), int64, to (B, C, H, W)."""
        return self.at(values).movedim(-1, 1)

    def at(self, values: Tensor) -> Tensor:
        """The same with C last: (..., C) from (...) or (..., channels)."""
        if self.domain.channels == 1:
            embedded: Tensor = self.vectors(values)
            return embedded
        colours = torch.arange(self.domain.channels, device=values.device)
        every: Tensor = self.vectors(values + colours * self.domain.grid.num_codes)
        return every.sum(dim=-2)

    @torch.no_grad()
    def _start_in_order(self) -> None:
        """Near intensities start near: on a line from -1 to 1, as papers on pixels feed them."""
        intensity = torch.linspace(-1, 1, self.domain.grid.num_codes)
        direction = torch.randn(self.domain.channels, 1, self.vectors.embedding_dim)
        line = (intensity[:, None] * direction).flatten(0, 1)
        self.vectors.weight.mul_(ROUGHNESS).add_(line)
