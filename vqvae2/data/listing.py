"""Listings: the images of a split, named and labelled but not yet decoded.

Every source makes listings; folders and tables recognise their splits by the same names.

Legend: `N` images.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vqvae2.data.decode import Decoded
from vqvae2.data.order import Order
from vqvae2.messages import shortened

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = ("val", "valid", "validation", "dev", "test", "testing")
"""Names of splits; the first that a source has is used."""


Label = int | str | bool
"""A label as a source stores it: a number or a name."""


class BlockStream(Protocol):
    """Images that are read in blocks, some of which are in memory."""

    @property
    def order(self) -> Order:
        """An order of an epoch that has few blocks open at once."""
        ...

    @property
    def prefetch_limit(self) -> int:
        """How many images ahead of its use an image may be prefetched."""
        ...

    def prefetch(self, indices: Sequence[int]) -> None:
        """Starts to read the blocks of these images."""

    def close(self) -> None:
        """Cancels what is being prefetched."""

    def blocks_from(self, index: int) -> Iterator[range]:
        """The indices in the block of an image, then in each following block, cyclically."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageListing:
    """The images of one split before they are decoded.

    Arguments:
        names: Name of each image in messages and tables, N of them.
        labels: (N,) int64, all 0 without labels.
        class_names: () without labels.
        decode: Decodes the images of the given indices.
        facts: Properties of the source, for the fingerprint.
        lengths: Length of each image's file in bytes where it is known, for the fingerprint.
        stream: Reads images in blocks, if the source is streamed; `facts` then covers `names`.
    """

    names: Sequence[str]
    labels: Tensor
    class_names: tuple[str, ...]
    decode: Callable[[Sequence[int]], Decoded]
    facts: str
    lengths: Sequence[int] = ()
    stream: BlockStream | None = None

    def select(self, indices: list[int]) -> "ImageListing":
        """The images of the given indices, in this order."""
        return replace(
            self,
            names=[self.names[index] for index in indices],
            labels=self.labels[torch.tensor(indices, dtype=torch.int64)],
            lengths=[self.lengths[index] for index in indices] if self.lengths else [],
            decode=lambda positions: self.decode([indices[position] for position in positions]),
            stream=None,
        )

    def with_classes(self, class_names: tuple[str, ...], source: str) -> "ImageListing":
        """The listing with the labels of other classes of the same names, which may be more.

        Arguments:
            class_names: the classes that labels shall mean.
            source: of the listing, for the message.

        Raises:
            ValueError: the listing has a class that is not among them, or none.
        """
        if not self.class_names or not set(self.class_names) <= set(class_names):
            raise ValueError(
                f"The classes of {source} ({shortened(self.class_names) or 'none'}) are not those "
                f"of the run ({shortened(class_names)}); use the same sub-folders."
            )
        numbers = torch.tensor([class_names.index(name) for name in self.class_names])
        return replace(self, labels=numbers[self.labels], class_names=class_names)

    def without_labels(self) -> "ImageListing":
        """The same images, unlabelled."""
        return replace(self, labels=torch.zeros_like(self.labels), class_names=())


ListedSplits = tuple[ImageListing, ImageListing | None]
"""The training split, and the validation split if the source has one."""


def sorted_labels(labels: Iterable[Label]) -> list[Label]:
    """Labels in increasing order, numbers before names."""
    distinct = list(labels)
    numbers = sorted(label for label in distinct if not isinstance(label, str))
    return [*numbers, *sorted(label for label in distinct if isinstance(label, str))]


def hashed(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on (seed, name) alone."""
    digest = blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def suffix(name: str) -> str:
    """The ending of a file name, in lower case with its dot."""
    return os.path.splitext(name)[1].lower()


def missing_path(path: Path) -> str:
    """The message for a path that does not exist, with a similar name where there is one."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f"There is no {path.absolute()}: {parent.absolute()} is no folder; check the path."
    siblings = os.listdir(parent) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {parent / near[0]}?" if near else "check the path."
    return f"There is no folder or file {path.absolute()}; {hint}"
