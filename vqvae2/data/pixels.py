"""Pictures as their own codes, for a prior on pixels.

Legend: `B` batch, `H W` sides.
"""

from dataclasses import dataclass

from torch import Tensor

from vqvae2.data.images import Pictures
from vqvae2.data.order import Order


@dataclass(frozen=True)
class PixelData:
    """Pictures as `vqvae2.data.codes.CodeData` holds codes."""

    pictures: Pictures

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def order(self) -> Order:
        """The order in which an epoch takes them."""
        return self.pictures.order

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """One level, the pictures (B, H, W, 3) int64, and labels (B,)."""
        images = self.pictures.batch(indices).movedim(1, -1)
        return [images.long()], self.pictures.labels[indices]
