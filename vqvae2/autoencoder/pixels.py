"""Images as their own codes, in place of an autoencoder, for a prior over pixels.

A pixel model has one level, whose grid is the image's and whose values are the intensities of its
channels. It trains, samples, saves and is measured by the same calls as a hierarchy of codes.

Legend: `B` batch, `H W` image sides.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import AtLeast0, JsonObject, require_ranges

NUM_INTENSITIES = 256


@dataclass(frozen=True, kw_only=True)
class PixelsConfig:
    """RGB images of 256 intensities per channel.

    Arguments:
        num_mixtures: logistics per pixel (PixelCNN++, Eq. 2); 0 for one softmax per channel.
    """

    kind: Literal["pixels"] = "pixels"
    num_mixtures: AtLeast0 = 0

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("", self)

    @property
    def num_levels(self) -> int:
        """One: the image."""
        return 1

    @property
    def image_channels(self) -> int:
        """Red, green and blue."""
        return 3

    def grids(self, height: int, width: int) -> list[CodeGrid]:
        """One grid, with the image's sides."""
        return [CodeGrid(NUM_INTENSITIES, height, width)]

    def code_settings(self) -> JsonObject:
        """The fields that decide codes."""
        return {"kind": self.kind}

    def build(self) -> "Pixels":
        """The module that converts."""
        return Pixels(self)


class Pixels(nn.Module):
    """Converts images to intensities and back, without loss or parameters; calls as of `VQVAE`."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.config = config

    def encode(self, images: Tensor) -> list[Tensor]:
        """One map (B, H, W, 3) int64 of images (B, 3, H, W) in [0, 1]."""
        return [(images * (NUM_INTENSITIES - 1)).round().long().movedim(1, -1)]

    def decode(self, codes: Sequence[Tensor], levels: Collection[int] | None = None) -> Tensor:
        """Images (B, 3, H, W) in [0, 1]; black if `levels` is given without level 0."""
        intensities = codes[0].movedim(-1, 1).to(torch.get_default_dtype())
        images = intensities / (NUM_INTENSITIES - 1)
        return images if levels is None or 0 in levels else torch.zeros_like(images)

    def code_state(self) -> dict[str, Tensor]:
        """Nothing: no weights decide the codes."""
        return {}
