"""The residual conditioning stack: embeds the label and the coarser codes (VQ-VAE-2, Sec. 3.2).

Legend: `B` batch, `C` channels, `H W` grid of the modelled level.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.modules import Modules
from vqvae2.nn.residual import ResidualStack, Upsample
from vqvae2.priors.domain import Domain


class Conditioning(nn.Module):
    """Embeds the label and, below the coarsest level, the coarser codes.

    The codes of each coarser level are embedded and brought to the finest coarser grid. Their sum
    with the label passes through residual blocks there and is up-sampled to the modelled grid.

    Arguments:
        domain: the labels and grids.
        channels: C.
        num_blocks: residual blocks on the coarser codes.
        dropout: probability of zeroing a hidden channel of those blocks.
    """

    def __init__(self, domain: Domain, channels: int, num_blocks: int, dropout: float) -> None:
        super().__init__()
        self.domain = domain
        self.labels = nn.Embedding(domain.num_labels, channels)
        self.mirrored = nn.Embedding(2, channels) if domain.mirror_bit else None
        self.codes = Modules(nn.Embedding(grid.num_codes, channels) for grid in domain.coarser)
        if domain.coarser:
            factor = domain.grid.height // domain.coarser[-1].height
            self.mix = nn.Sequential(
                ResidualStack(channels, channels, max(1, num_blocks), dropout=dropout),
                nn.ReLU(),
                Upsample(channels, channels, factor),
            )

    def forward(self, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Embeds a batch.

        Arguments:
            labels: (B,) int64; with a mirror bit those of mirrored images are higher.
            coarser: codes (B, H, W) int64 of each coarser level, coarsest first.

        Returns:
            The context: (B, C, H, W), or (B, C, 1, 1) on the coarsest level.
        """
        if self.mirrored is None:
            embedded: Tensor = self.labels(labels)
        else:
            is_mirrored = labels // self.domain.num_labels
            embedded = self.labels(labels % self.domain.num_labels) + self.mirrored(is_mirrored)
        label = embedded[:, :, None, None]
        if not coarser:
            return label
        finest = coarser[-1].shape[1:]
        mixed = label
        for embedding, codes in zip(self.codes, coarser, strict=True):
            vectors = embedding(codes).movedim(-1, 1)
            mixed = mixed + F.interpolate(vectors, size=finest, mode="nearest")
        return self.mix(mixed) + label
