"""Sampled images with what made them: shown in notebooks, as a grid, or written as files.

Legend: `B` batch, `C` image channels, `S` image side, `H W` code grid.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vqvae2.configuration import Json
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import png, save_png
from vqvae2.messages import counted, shortened

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_GRID_COLUMNS = 8
"""Pixels; smaller images are enlarged in a grid."""

MAX_SHOWN = 64
"""Images that a notebook shows of a larger set."""


@dataclass(frozen=True, repr=False)
class Samples:
    """Images from `Pipeline.sample` or `Pipeline.inpaint`.

    Arguments:
        images: (B, C, S, S) in [0, 1].
        codes: (B, H, W) int64 per level, coarsest first.
        labels: (B,) int64.
        seeds: one per image.
        class_names: of the model, in the order of the labels; () without.
        settings: what else made the images; every file stores it.
    """

    images: Tensor
    codes: list[Tensor]
    labels: Tensor
    seeds: list[int]
    class_names: tuple[str, ...] = ()
    settings: Mapping[str, Json] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        height, width = self.images.shape[2:]
        names = list(dict.fromkeys(self.names))
        of = f" of {shortened(names)}" if self.class_names else ""
        return f"Samples({counted(len(self), 'image')} {height}x{width}{of})"

    @property
    def names(self) -> list[str]:
        """The class of each image; `image` for a model without classes."""
        return [class_name(self.class_names, label) for label in self.labels.tolist()]

    @classmethod
    def joined(cls, parts: Sequence["Samples"]) -> "Samples":
        """The images of some batches of one call as one."""
        first = parts[0]
        return cls(
            torch.cat([part.images for part in parts]),
            [torch.cat(maps) for maps in zip(*(part.codes for part in parts), strict=True)],
            torch.cat([part.labels for part in parts]),
            [seed for part in parts for seed in part.seeds],
            first.class_names,
            first.settings,
        )

    def first(self, count: int) -> "Samples":
        """The first images, at most `count`."""
        codes = [level[:count] for level in self.codes]
        part = self.images[:count], codes, self.labels[:count], self.seeds[:count]
        return Samples(*part, self.class_names, self.settings)

    def to_pil(self) -> list["Image"]:
        """The images as Pillow images, RGB."""
        return [to_pil(image) for image in self.images.cpu()]

    def grid(self, columns: int = 0) -> "Image":
        """All images as one, small ones enlarged; as many columns as fit well by default."""
        columns = columns or min(MAX_GRID_COLUMNS, math.ceil(math.sqrt(len(self))))
        return image_grid(self.images.cpu().split(columns))

    def save(self, folder: str | Path) -> list[Path]:
        """Writes each image as CLASS-SEED.png into a folder, with the settings that made it."""
        paths: list[Path] = []
        uses: Counter[str] = Counter()
        rows = zip(self.to_pil(), self.labels.tolist(), self.names, self.seeds, strict=True)
        for image, label, name, seed in rows:
            file = f"{file_name(self.class_names, label)}-{seed:05d}"
            uses[file] += 1
            number = f"-{uses[file]}" if uses[file] > 1 else ""  # one class and seed, other codes
            paths.append(Path(folder) / f"{file}{number}.png")
            save_png(paths[-1], image, {"class": name, "seed": seed, **self.settings})
        return paths

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the first images."""
        return png(self.first(MAX_SHOWN).grid())


def class_name(class_names: Sequence[str], label: int) -> str:
    """The name of a class; `image` for a model without classes."""
    return class_names[label] if class_names else "image"


def file_name(class_names: Sequence[str], label: int) -> str:
    """The name of a class as part of a file name.

    Contains the label where another class would have the same file name.
    """
    names = [safe(name) for name in class_names] or ["image"]
    return names[label] if names.count(names[label]) == 1 else f"{names[label]}-{label}"


def safe(name: str) -> str:
    """The name with letters, digits, `-` and `_` alone."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "class"
