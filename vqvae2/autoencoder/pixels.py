"""Images as their own codes: what a prior on pixels has in the place of an autoencoder.

With it a pixel model trains, samples, saves and measures through the same doors as a hierarchy of
codes: one level, whose grid is the image's and whose values are the intensities of its colours.

Legend: `B` batch, `H W` image sides.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PixelsConfig:
    """RGB images of 256 intensities.

    Arguments:
        num_mixtures: logistics a pixel (PixelCNN++, Eq. 2); 0 for a softmax a colour.
    """

    kind: Literal["pixels"] = "pixels"
    num_mixtures: int = 0

    @property
    def num_levels(self) -> int:
        """One: the image."""
        return 1

    @property
    def num_codes(self) -> int:
        """Intensities of a colour."""
        return 256

    @property
    def image_channels(self) -> int:
        """Colours of a pixel."""
        return 3

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """The image's own sides."""
        return [(height, width)]


class Pixels(nn.Module):
    """Encodes images without a loss and without a parameter; see `VQVAE` for the same calls."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, images: Tensor) -> list[Tensor]:
        """One map (B, H, W, 3) int64 of images (B, 3, H, W) in [0, 1]."""
        return [(images * 255).round().long().movedim(1, -1)]

    def decode(self, codes: Sequence[Tensor], levels: Collection[int] | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]; black where `levels` leaves the only one out."""
        images = codes[0].movedim(-1, 1).to(torch.get_default_dtype()) / 255
        return images if levels is None or 0 in levels else torch.zeros_like(images)
