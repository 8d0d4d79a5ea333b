"""Images for training and validation: square uint8 RGB images with labels, from any source.

`open_images` opens a source as two splits. An image that cannot be used is skipped, named and
counted; it never ends a run.

Legend: `B` batch, `N` images, `S` image side.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from vqvae2.data.config import DataConfig
from vqvae2.data.decode import UnusableImage
from vqvae2.data.folders import folder_and_names, folder_listing
from vqvae2.data.listing import ImageListing, hashed
from vqvae2.data.order import Order, Shuffle, evenly_spaced, inference_batch_size
from vqvae2.data.sources import open_source, synthetic_listing
from vqvae2.data.streaming import open_streamed
from vqvae2.imaging.convert import to_float
from vqvae2.transfers import to_device

Progress = Callable[[str, int, int], None]
"""Called with the name of an activity, the number of items done and the total number."""


def quiet(what: str, done: int, total: int) -> None:
    """Ignores progress."""


NUM_PROBED = 256
"""Images that are tried before a source that is decoded on access counts as unusable."""

DECODE_BATCH = 512
"""Images that are decoded between two reports of progress."""

MAX_PREFETCH_STEPS = 32
"""Training steps ahead of its use at which a streamed batch is prefetched, at most."""

TITLES = ("training images", "validation images")


@final
class ImageDataset:
    """One split: square uint8 RGB images with their labels.

    In memory, images are decoded once, by the constructor, and unusable ones are removed.
    Otherwise they are decoded on access, and an unusable one is replaced by the next usable image,
    of the same class where there is one.

    Arguments:
        listing: The images to decode.
        size: S, pixels.
        in_memory: Decode all images now, into N * 3 * S * S bytes.
        title: Name of this split in messages and progress.
        progress: Receives the progress of decoding.

    Attributes:
        class_names: () without labels.
        labels: (N,) int64, all 0 without labels.
        size: S, pixels.
        names: Name of each image in messages and tables: a file name or a number.
        reasons: Why each image skipped so far cannot be used, by name.
    """

    def __init__(
        self,
        listing: ImageListing,
        *,
        size: int,
        in_memory: bool,
        title: str = "images",
        progress: Progress = quiet,
    ) -> None:
        self.size = size
        self.class_names = listing.class_names
        self.reasons: dict[str, str] = {}
        self._title = title
        self._unusable: dict[int, UnusableImage] = {}
        self._pixels: Tensor | None = None
        self._source = listing  # with unusable images: the fingerprint covers them
        self._listing = listing
        self.labels, self.names = listing.labels, listing.names
        if in_memory:
            self._pixels, usable = self._decode_all(progress)
            if len(usable) < len(listing.names):
                self._listing = listing.select(usable)
                self.labels, self.names = self._listing.labels, self._listing.names
        else:
            probes = evenly_spaced(len(self), NUM_PROBED).tolist()
            if all(self._decode([index])[0] is None for index in probes):
                raise self._no_usable_images()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def order(self) -> Order:
        """The order of the images within an epoch."""
        return self._listing.stream.order if self._listing.stream else Shuffle(len(self))

    def prefetch_steps(self, batch_size: int) -> int:
        """How many steps ahead of its use a batch should be prefetched; 0 without streaming."""
        stream = self._listing.stream
        if self._pixels is not None or stream is None:
            return 0
        return max(1, min(MAX_PREFETCH_STEPS, stream.prefetch_limit // batch_size))

    def prefetch(self, indices: Tensor) -> None:
        """Starts to read streamed images that will be used soon."""
        if self._listing.stream is not None:
            self._listing.stream.prefetch(indices.tolist())

    def close(self) -> None:
        """Cancels what is being prefetched, so that the program can end."""
        if self._listing.stream is not None:
            self._listing.stream.close()

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """The images of the given indices, (B, 3, S, S) uint8."""
        index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).cpu()
        if self._pixels is not None:
            return self._pixels[index]
        positive = [number % len(self) for number in index.tolist()]
        images = torch.empty((len(positive), 3, self.size, self.size), dtype=torch.uint8)
        for row, decoded in enumerate(self._decode(positive)):
            images[row] = self._replacement(positive[row]) if decoded is None else decoded
        return images

    def batches(self, indices: Tensor, device: str | torch.device = "cpu") -> Iterator[Tensor]:
        """Float images in [0, 1] of the given indices, (B, 3, S, S), for inference."""
        for part in torch.split(indices, inference_batch_size(self.size)):
            if len(part):  # `split` makes one part of no indices
                yield to_float(to_device(self.batch(part), device))

    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify this split, computed without decoding it.

        They cover the names, labels, file lengths and side of the images, not their folder.
        """
        listing = self._source
        digest = hashlib.sha256(f"vqvae2-images 1 {self.size} {listing.facts}\n".encode())
        names = [] if listing.stream else listing.names
        digest.update(json.dumps([self.class_names, names, listing.lengths]).encode())
        digest.update(listing.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _decode_all(self, progress: Progress) -> tuple[Tensor, list[int]]:
        """All usable images, (M, 3, S, S), and their M indices."""
        total = len(self)
        pixels = torch.empty((total, 3, self.size, self.size), dtype=torch.uint8)
        usable: list[int] = []
        for start in range(0, total, DECODE_BATCH):
            part = range(start, min(start + DECODE_BATCH, total))
            for index, image in zip(part, self._decode(part), strict=True):
                if image is not None:
                    pixels[len(usable)] = image
                    usable.append(index)
            progress(f"reading {self._title}", part.stop, total)
        if not usable:
            raise self._no_usable_images()
        return pixels[: len(usable)], usable

    def _decode(self, indices: Sequence[int]) -> list[Tensor | None]:
        """The images, None where one is unusable; known unusable ones are not tried again."""
        untried = [index for index in dict.fromkeys(indices) if index not in self._unusable]
        images: dict[int, Tensor] = {}
        for index, image in zip(untried, self._listing.decode(untried), strict=True):
            if isinstance(image, UnusableImage):
                self._unusable[index] = image
                self.reasons[self.names[index]] = str(image)
            else:
                images[index] = image
        return [images.get(index) for index in indices]

    def _replacement(self, index: int) -> Tensor:
        """The next usable image of the same class, else the next of any class.

        Of streamed images, those of the same block come first, then those of the next blocks.
        """
        stream = self._listing.stream
        for block in stream.blocks_from(index) if stream else [range(len(self))]:
            after = index + 1 - block.start if index in block else 0
            others = (torch.arange(len(block)) + after) % len(block) + block.start
            others = others[others != index]
            same = self.labels[others] == self.labels[index]
            for other in torch.cat([others[same], others[~same]]).tolist():
                image = self._decode([other])[0]
                if image is not None:
                    return image
        raise self._no_usable_images()

    def _no_usable_images(self) -> ValueError:
        errors, total = list(self._unusable.values()), len(self)
        sides = [error.short_side for error in errors if error.short_side is not None]
        tried = f"{total}" if len(errors) == total else f"{len(errors)} tried of {total}"
        if len(sides) == len(errors):
            return ValueError(
                f"All {tried} {self._title} are too small for size {self.size}: the short side "
                f"must be at least {math.ceil(self.size / 2)} pixels, the largest has "
                f"{max(sides)}; use larger images or a size of {2 * max(sides)} or less."
            )
        name, reason = next(iter(self.reasons.items()))
        return ValueError(
            f"None of the {tried} {self._title} can be used; the first, {name}: {reason}. "
            "Check that the files are complete images."
        )


@dataclass(frozen=True)
class ImageSplits:
    """The two splits of a source, and the classes they share, () without labels."""

    train: ImageDataset
    validation: ImageDataset
    class_names: tuple[str, ...]

    def close(self) -> None:
        """Cancels what is being prefetched, so that the program can end."""
        self.train.close()
        self.validation.close()


def open_images(config: DataConfig, *, progress: Progress = quiet) -> ImageSplits:
    """Opens a source as a training and a validation split.

    The validation split of the source is used, else its test split. If it has neither,
    `validation_fraction` of the images is chosen by a hash of the seed and each name, so that
    adding images never moves others to the other split.

    Arguments:
        config: The source of the images.
        progress: Receives the progress of decoding.
    """
    listings = list_splits(config)
    train, validation = (_open_split(config, listings, split, progress) for split in (0, 1))
    return ImageSplits(train=train, validation=validation, class_names=train.class_names)


def open_validation(config: DataConfig, *, progress: Progress = quiet) -> ImageDataset:
    """Opens only the validation split of `open_images`."""
    return _open_split(config, list_splits(config), 1, progress)


def open_test(
    config: DataConfig,
    source: str,
    class_names: tuple[str, ...],
    *,
    progress: Progress = quiet,
) -> ImageDataset:
    """Opens images that a run has never seen: the held-out split of a source, or all of it.

    Arguments:
        config: of the run's own images.
        source: as of `DataConfig`, but not streamed.
        class_names: of the run; () without labels.
        progress: receives the progress of decoding.

    Raises:
        ValueError: there are other classes than those of the run.
    """
    train, held_out = open_source(source, config.size)
    listing = train if held_out is None else held_out
    return ImageDataset(
        listing.with_classes(class_names, source) if class_names else listing.without_labels(),
        size=config.size,
        in_memory=fits_in_memory(len(listing.names), config.size, config.memory_gib),
        title="test images",
        progress=progress,
    )


def list_splits(config: DataConfig) -> tuple[ImageListing, ImageListing]:
    """The listings of the training and the validation split."""
    if config.is_streamed:
        train, validation = open_streamed(config)
    elif config.source == "synthetic":
        train = synthetic_listing(config.synthetic_images, config.size, config.seed)
        validation = None
    else:
        train, validation = open_source(config.source, config.size)
    if validation is None:
        train, validation = _split_listing(train, config.validation_fraction, config.seed)
    if train.class_names and not validation.class_names:
        raise ValueError(
            f"The training images of {config.source} have classes and the validation images have "
            "none; sort those into the same sub-folders, or move their folder away."
        )
    return train, validation if train.class_names else validation.without_labels()


def _open_split(
    config: DataConfig, listings: tuple[ImageListing, ImageListing], split: int, progress: Progress
) -> ImageDataset:
    """Split 0 or 1; both are in memory or neither, but streamed training images never are."""
    counts = [len(listing.names) for listing in listings]
    num_images = counts[split] if config.is_streamed else sum(counts)
    in_memory = fits_in_memory(num_images, config.size, config.memory_gib)
    return ImageDataset(
        listings[split],
        size=config.size,
        in_memory=in_memory and not (config.is_streamed and split == 0),
        title=TITLES[split],
        progress=progress,
    )


def load_images(
    path: str | Path, size: int, *, memory_gib: float = 4.0, progress: Progress = quiet
) -> ImageDataset:
    """Opens all images in and below a folder, or a single image, as one split without labels.

    Arguments:
        path: The folder, or the file of an image.
        size: Side of the square images, pixels.
        memory_gib: As of `DataConfig`.
        progress: Receives the progress of decoding.
    """
    listing = folder_listing(*folder_and_names(Path(path)), size)
    in_memory = fits_in_memory(len(listing.names), size, memory_gib)
    return ImageDataset(listing, size=size, in_memory=in_memory, progress=progress)


def fits_in_memory(num_images: int, size: int, memory_gib: float) -> bool:
    """Whether decoded images take at most `memory_gib`."""
    return num_images * 3 * size**2 <= memory_gib * 2**30


def image_files(path: str | Path) -> list[Path]:
    """The image files in and below a folder, in the order of `load_images`."""
    folder, names = folder_and_names(Path(path))
    return [folder / name for name in names]


def _split_listing(
    listing: ImageListing, fraction: float, seed: int
) -> tuple[ImageListing, ImageListing]:
    """Splits by a hash of each name, so that the split of an image depends on its name alone."""
    if len(listing.names) < 2:
        raise ValueError(
            "At least 2 images are needed, one for training and one for validation, got "
            f"{len(listing.names)} ({', '.join(listing.names)}); add images."
        )
    hashes = [hashed(name, seed) for name in listing.names]
    ascending = sorted(range(len(hashes)), key=hashes.__getitem__)
    # Neither split is ever empty.
    validation = {index for index in ascending if hashes[index] < fraction} | {ascending[0]}
    validation -= {ascending[-1]}
    train = [index for index in range(len(hashes)) if index not in validation]
    return listing.select(train), listing.select(sorted(validation))
