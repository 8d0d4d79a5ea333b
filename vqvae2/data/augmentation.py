"""Augmented images: crops and mirrored copies, so that a prior has more codes to learn from.

Augmented image 0 is the image itself, then come random crops, then all of these mirrored. Codes
are not equivariant: images are cropped and mirrored before they are encoded, never code maps.

Legend: `B` batch, `N` images, `A` augmented images per image, `S` image side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, final

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.configuration import AtLeast0, Interval, require_ranges
from vqvae2.data.images import ImageDataset
from vqvae2.randomness import generator


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Which augmented images of a training image are encoded.

    Arguments:
        mirror: Add the mirror image of each, left to right; for images whose content allows it.
        crops: Number of random square crops, resized to the image's side.
        crop_side: Smallest side of a crop, as a fraction of the image's side.
    """

    mirror: bool = False
    crops: AtLeast0 = 0
    crop_side: Annotated[float, Interval("(0, 1]")] = 0.8

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("augmentation.", self)

    @property
    def count(self) -> int:
        """Augmented images per image, A."""
        return (1 + self.crops) * (1 + self.mirror)

    def is_mirrored(self, indices: Tensor) -> Tensor:
        """Which of `AugmentedImages` of (B,) indices are mirrored, (B,) bool."""
        return indices % self.count >= 1 + self.crops


@final
class AugmentedImages:
    """All augmented images of a data set, as a data set of N A images.

    Those of one image have consecutive indices.

    Arguments:
        dataset: The images.
        config: Which augmented images.
        seed: Seed of the crops.
    """

    def __init__(self, dataset: ImageDataset, config: AugmentationConfig, seed: int) -> None:
        self.dataset, self.config, self.seed = dataset, config, seed
        self.size = dataset.size

    def __len__(self) -> int:
        return len(self.dataset) * self.config.count

    @cached_property
    def labels(self) -> Tensor:
        """(N A,) int64."""
        return self.dataset.labels.repeat_interleave(self.config.count)

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The augmented images of the given indices, (B, 3, S, S) uint8."""
        index = torch.as_tensor(indices)
        source, variant = index // self.config.count, index % self.config.count
        distinct, positions = source.unique(return_inverse=True)
        images = self.dataset.batch(distinct)[positions]
        crops, mirrored = variant % (1 + self.config.crops), self.config.is_mirrored(index)
        for position, crop in enumerate(crops.tolist()):
            if crop:
                images[position] = self._crop(images[position], int(source[position]), crop)
        return torch.where(mirrored[:, None, None, None], images.flip(3), images)

    def fingerprint(self) -> str:
        """The fingerprint of the images, with the augmentation where there is any."""
        digest = self.dataset.fingerprint()
        return digest if self.config.count == 1 else f"{digest} {self.config} seed {self.seed}"

    def _crop(self, image: Tensor, number: int, crop: int) -> Tensor:
        """A random square of an image (3, S, S), the same for each (seed, number, crop)."""
        noise = torch.rand(3, generator=generator("crop", self.seed, number, crop)).tolist()
        smallest = self.config.crop_side
        side = max(1, round(self.size * (smallest + (1 - smallest) * noise[0])))
        top, left = (int(fraction * (self.size - side + 1)) for fraction in noise[1:])
        square = image[None, :, top : top + side, left : left + side].float()
        resized = F.interpolate(square, (self.size, self.size), mode="bicubic", antialias=True)
        return resized[0].round().clamp(0, 255).to(torch.uint8)
