"""The residual conditioning stack: label and coarser codes as a map (VQ-VAE-2, Sec. 3.2).

Legend: `B` batch, `C` channels, `H W` grid of the level that is conditioned.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.residual import ResidualStack, Upsample
from vqvae2.priors.domain import Domain


class Conditioning(nn.Module):
    """Embeds labels, and coarser codes where there are any.

    Coarser codes are embedded on their own grids, brought to the finest of those, summed with the
    label, mixed by residual blocks there, and up-sampled to this level's grid.

    Arguments:
        domain: says which labels and grids there are.
        channels: C of the result.
        num_blocks: residual blocks on the coarser codes.
        dropout: probability in those blocks.
    """

    def __init__(self, domain: Domain, channels: int, num_blocks: int, dropout: float) -> None:
        super().__init__()
        self.domain = domain
        self.labels = nn.Embedding(domain.num_labels, channels)
        self.codes = nn.ModuleList(
            nn.Embedding(grid.num_codes, channels) for grid in domain.coarser
        )
        if domain.coarser:
            factor = domain.grid.height // domain.coarser[-1].height
            self.mix = nn.Sequential(
                ResidualStack(channels, channels, max(1, num_blocks), dropout=dropout),
                nn.ReLU(),
                Upsample(channels, channels, factor),
            )

    def forward(self, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """The context: (B, C, H, W), or (B, C, 1, 1) on the coarsest level."""
        label: Tensor = self.labels(labels)[:, :, None, None]
        if not coarser:
            return label
        finest = coarser[-1].shape[1:]
        mixed = label
        for embedding, codes in zip(self.codes, coarser, strict=True):
            x = embedding(codes).movedim(-1, 1)
            mixed = mixed + F.interpolate(x, size=finest, mode="nearest")
        context: Tensor = self.mix(mixed) + label
        return context
