"""What every source of images gives: rows, the names of splits, and words for what is missing.

`Rows` are listed and labelled but not yet decoded. Folders and tables both make them, and tell
their splits by the same names.
"""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from vqvae2.data.decode import Decoded
from vqvae2.data.order import Order

TRAIN_NAMES = ("train", "training")
VALIDATION_NAMES = (
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testing",
)  # the first found counts


class Blocks(Protocol):
    """Rows that are read some blocks at a time."""

    @property
    def order(self) -> Order:
        """An order that opens few blocks at once."""
        ...

    def expect(self, indices: Sequence[int]) -> None:
        """Tells what will be asked for."""

    @property
    def ahead(self) -> int:
        """So many rows before its turn one may be asked for."""
        ...

    def close(self) -> None:
        """Reads nothing more ahead."""

    def from_block_of(self, index: int) -> Iterator[range]:
        """The rows of a row's block, then those of the next, and so on around."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageListing:
    """One split before it is decoded.

    Arguments:
        names: What each image is called in messages, N of them.
        labels: With shape (N,), int64, all 0 without labels.
        class_names: Empty without labels.
        decode: Decodes the images of the given indices.
        lengths: Bytes of each image's file where they are known, for the fingerprint.
        facts: What else tells this source from others, for the fingerprint.
        stream: How they lie in blocks, if they do; names then say nothing that `facts` does not.
    """

    names: Sequence[str]
    labels: Tensor
    class_names: tuple[str, ...]
    decode: Callable[[Sequence[int]], Decoded]
    lengths: list[int]
    facts: str
    stream: Blocks | None = None

    def select(self, indices: list[int]) -> "ImageListing":
        """Returns the given rows, in the given order."""
        return replace(
            self,
            names=[self.names[index] for index in indices],
            labels=self.labels[torch.tensor(indices, dtype=torch.int64)],
            lengths=[self.lengths[index] for index in indices] if self.lengths else [],
            decode=lambda wanted: self.decode([indices[index] for index in wanted]),
            stream=None,
        )

    def without_labels(self) -> "ImageListing":
        """Returns the same rows with their labels removed."""
        return replace(self, labels=torch.zeros_like(self.labels), class_names=())


Splits = tuple[
    ImageListing, ImageListing | None
]  # the training split, and a validation one if the source has it


def suffix(name: str) -> str:
    """Returns how a file's name ends, in lower case with its dot."""
    return os.path.splitext(name)[1].lower()


def missing(path: Path) -> str:
    """Returns the message for a path that is not there, with a near name where there is one."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f"There is no {path.absolute()}: {parent.absolute()} is no folder; check the path."
    siblings = os.listdir(parent) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {parent / near[0]}?" if near else "check the path."
    return f"There is no folder or file {path.absolute()}; {hint}"
