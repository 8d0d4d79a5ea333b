"""Images as their own codes, for a prior on pixels.

Legend: `B` batch, `H W` sides.
"""

from dataclasses import dataclass

from torch import Tensor

from vqvae2.data.images import ImageDataset
from vqvae2.data.order import Order


@dataclass(frozen=True)
class PixelCodes:
    """Images as a `vqvae2.data.codes.CodeDataset` of one level."""

    dataset: ImageDataset

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def order(self) -> Order:
        """The order of the images within an epoch."""
        return self.dataset.order

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """One level, the intensities (B, H, W, 3) int64, and labels (B,)."""
        images = self.dataset.batch(indices).movedim(1, -1)
        return [images.long()], self.dataset.labels[indices]
