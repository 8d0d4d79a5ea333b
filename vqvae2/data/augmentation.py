"""Several views of each image, so that a prior has more codes to learn from.

View 0 is the image itself, then come random crops, then all of these mirrored. Codes are not
equivariant, so images are moved and encoded again; moving codes would not do.

Legend: `N` images, `V` views of each, `S` their side.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.data.images import ImageDataset
from vqvae2.randomness import generator


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Which views of a training image are turned into codes.

    Arguments:
        mirror: Also mirrored, left to right: where that leaves a image what it is.
        crops: Also so many random squares of the image, brought to its size.
        crop_side: Least side of such a square, as part of the image's.
    """

    mirror: bool = False
    crops: int = 0
    crop_side: float = 0.8

    @property
    def count(self) -> int:
        """V."""
        return (1 + self.crops) * (1 + self.mirror)

    def check(self) -> None:
        """Raises ValueError for what is no view."""
        if self.crops < 0 or not 0 < self.crop_side <= 1:
            raise ValueError(
                "views.crops must be 0 or more and views.crop_side in (0, 1], got "
                f"{self.crops} and {self.crop_side:g}."
            )


@final
class Augmentation:
    """All views of a split, as a split of N V images: those of one follow one another.

    Arguments:
        images: whose views.
        config: which.
        seed: of the crops.
    """

    def __init__(self, dataset: ImageDataset, config: AugmentationConfig, seed: int) -> None:
        self.dataset, self.config, self.seed = dataset, config, seed
        self.size = dataset.size

    def __len__(self) -> int:
        return len(self.dataset) * self.config.count

    @cached_property
    def labels(self) -> Tensor:
        """(N V,) int64."""
        return self.dataset.labels.repeat_interleave(self.config.count)

    def batch(self, indices: list[int] | Tensor) -> Tensor:
        """Views of the given numbers, (B, 3, S, S) uint8."""
        numbers = torch.as_tensor(indices)
        shown, which = numbers // self.config.count, numbers % self.config.count
        chosen, places = shown.unique(return_inverse=True)
        images = self.dataset.batch(chosen)[places]
        crops, mirrored = which % (1 + self.config.crops), which >= 1 + self.config.crops
        for place, crop in enumerate(crops.tolist()):
            if crop:
                images[place] = self._crop(images[place], int(shown[place]), crop)
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)

    def fingerprint(self) -> str:
        """That of the images; with more than one view also which they are."""
        own = self.dataset.fingerprint()
        return own if self.config.count == 1 else f"{own} {self.config} seed {self.seed}"

    def _crop(self, image: Tensor, number: int, crop: int) -> Tensor:
        """A random square of a image (3, S, S), the same for each (seed, image, crop)."""
        noise = torch.rand(3, generator=generator("crop", self.seed, number, crop)).tolist()
        least = self.config.crop_side
        side = max(1, round(self.size * (least + (1 - least) * noise[0])))
        top, left = (int(part * (self.size - side + 1)) for part in noise[1:])
        square = image[None, :, top : top + side, left : left + side].float()
        resized = F.interpolate(square, (self.size, self.size), mode="bicubic", antialias=True)
        return resized[0].round().clamp(0, 255).to(torch.uint8)
