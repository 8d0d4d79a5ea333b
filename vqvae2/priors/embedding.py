"""Embeds values: the codes of a map, or the channels of its pixels.

Legend: `B` batch, `C` channels of the embedding, `K` values, `H W` grid.
"""

import torch
from torch import Tensor, nn

from vqvae2.priors.domain import Domain

ROUGHNESS = 0.1
"""Scale of the random part of an intensity's initial embedding, relative to the linear part."""


class ValueEmbedding(nn.Module):
    """One vector per value; a pixel is embedded as the sum over its channels.

    Arguments:
        domain: the values.
        channels: C.
    """

    def __init__(self, domain: Domain, channels: int) -> None:
        super().__init__()
        self.domain = domain
        self.vectors = nn.Embedding(domain.channels * domain.grid.num_codes, channels)
        if domain.ordered:
            self._init_in_order()

    def forward(self, values: Tensor) -> Tensor:
        """Maps (B, H, W) or (B, H, W, channels), int64, to (B, C, H, W)."""
        return self.embed(values).movedim(-1, 1)

    def embed(self, values: Tensor) -> Tensor:
        """Embeds values of any leading shape: (...) or (..., channels) to (..., C)."""
        if self.domain.channels == 1:
            return self.vectors(values)
        channels = torch.arange(self.domain.channels, device=values.device)
        return self.vectors(values + channels * self.domain.grid.num_codes).sum(dim=-2)

    @torch.no_grad()
    def _init_in_order(self) -> None:
        """Places the intensities on a line from -1 to 1, as in the papers on pixels."""
        intensity = torch.linspace(-1, 1, self.domain.grid.num_codes)
        direction = torch.randn(self.domain.channels, 1, self.vectors.embedding_dim)
        line = (intensity[:, None] * direction).flatten(0, 1)
        self.vectors.weight.mul_(ROUGHNESS).add_(line)
