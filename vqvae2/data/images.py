"""Images to learn from: two splits of square uint8 RGB images with labels, from any source.

`open_images` gives one split to train on and one held out. A image that cannot be read is
skipped, named and counted; it never ends a run.
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

from vqvae2.data.decode import UnreadableImage
from vqvae2.data.folders import folder_rows, list_images
from vqvae2.data.listing import ImageListing
from vqvae2.data.order import Order, Shuffle, evenly_spaced, inference_batch_size
from vqvae2.data.sources import open_source, synthetic_rows
from vqvae2.data.streaming import Streaming, open_streamed
from vqvae2.imaging.convert import to_float

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


IMAGES_TRIED = 256
"""Before a source that is decoded on access counts as one that cannot be read."""

DECODED_AT_ONCE = 512  # images between two reports of progress


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where images come from and how they are made.

    Arguments:
        source: A folder, Parquet file(s), WebDataset .tar shard(s) (a file, a folder of them or a
            glob), the name of a hub data set ("owner/name" or "owner/name:config"), or
            "synthetic" for the built-in set. Shards elsewhere, "s3://..." or "https://...", are
            streamed.
        size: Side of the square images, pixels.
        validation_fraction: Share held out when the source brings no validation or test split.
        synthetic_images: Size of the built-in set, both splits together.
        seed: Of the validation split and of the built-in set.
        memory_gib: Decoded images are kept in memory up to this size, else decoded on access.
        stream: Read shards where they lie, some at a time, instead of converting them all first:
            for more images than a disk or an hour can take.
        window: Streamed images that are shuffled together; twice as many are held, encoded.
    """

    source: str = "synthetic"
    size: int = 64
    validation_fraction: float = 0.1
    synthetic_images: int = 12_000
    seed: int = 0
    memory_gib: float = 4.0
    stream: bool = False
    window: int = 16_384

    @property
    def is_streamed(self) -> bool:
        """Whether images are read where they lie."""
        return self.stream or "://" in self.source


STEPS_AHEAD = 32
"""At which streamed images are asked for, if a window lasts as long."""

TITLES = ("training images", "validation images")


@final
class ImageDataset:
    """One split: square uint8 RGB images with their labels.

    Images are decoded once, here, when `in_memory`; those that cannot be read are left out.
    Otherwise they are decoded on access, and one that cannot be read is replaced by the next
    that can, of the same class where there is one.

    Arguments:
        rows: What to decode.
        size: Side of the square images, pixels.
        in_memory: Decode everything now and keep it, N * 3 * S * S bytes.
        title: What to call this split in messages and progress.
        progress: Told how far decoding has come.

    Attributes:
        class_names: Empty when the source has no labels.
        labels: With shape (N,), int64, all 0 when there are no labels.
        size: Side of the square images, pixels.
        names: What each image is called.
        reasons: Why each unreadable image found so far cannot be used, by name.
    """

    def __init__(
        self,
        rows: ImageListing,
        *,
        size: int,
        in_memory: bool,
        title: str = "images",
        progress: Progress | None = None,
    ) -> None:
        self.size = size
        self.class_names = rows.class_names
        self.reasons: dict[str, str] = {}
        self._title = title
        self._bad: dict[int, UnreadableImage] = {}
        self._pixels: Tensor | None = None
        self._found = rows  # before unreadable ones are left out: what the fingerprint is of
        if in_memory:
            self._pixels, kept = self._decode_all(rows, progress)
            rows = rows if len(kept) == len(rows.names) else rows.select(kept)
        self.labels = rows.labels
        self.names = rows.names
        self._rows = rows
        if not in_memory:
            self._require_readable()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def order(self) -> Order:
        """The order in which an epoch takes them."""
        return self._rows.stream.order if self._rows.stream else Shuffle(len(self))

    def steps_ahead(self, batch: int) -> int:
        """How many steps of `batch` before its turn a streamed image may be on its way."""
        stream = self._rows.stream
        if self._pixels is not None or stream is None:
            return 0
        return max(1, min(STEPS_AHEAD, stream.ahead // batch))

    def expect(self, indices: Tensor) -> None:
        """Tells what will be asked for, so that it can be on its way."""
        if self._rows.stream is not None:
            self._rows.stream.expect(indices.tolist())

    def close(self) -> None:
        """Ends what reads ahead; no more is asked for."""
        if self._rows.stream is not None:
            self._rows.stream.close()

    @property
    def skipped(self) -> list[str]:
        """The names of the unreadable images found so far."""
        return list(self.reasons)

    def name(self, index: int) -> str:
        """Returns what a image is called in messages and tables: a file name or a number."""
        return self.names[index]

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the images of the given indices, with shape (B, 3, S, S), uint8."""
        index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).cpu()
        if self._pixels is not None:
            return self._pixels[index]
        wanted = [number % len(self) for number in index.tolist()]
        dataset = torch.empty((len(wanted), 3, self.size, self.size), dtype=torch.uint8)
        for place, decoded in enumerate(self._decode(wanted)):
            image = self._replacement(wanted[place]) if decoded is None else decoded
            dataset[place] = image
        return dataset

    def batches(self, indices: Tensor, device: str | torch.device = "cpu") -> Iterator[Tensor]:
        """Yields the images of the given indices in [0, 1], (B, 3, S, S), in inference batches."""
        for part in torch.split(indices, inference_batch_size(self.size)):
            if len(part):  # `split` makes one part of no indices
                yield to_float(self.batch(part).to(device))

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that tell this split from others, without decoding it.

        It covers the names, labels, file lengths and side of the images, not where they lie.
        """
        rows = self._found
        digest = hashlib.sha256(f"vqvae2-images 1 {self.size} {rows.facts}\n".encode())
        names = [] if rows.stream else rows.names
        digest.update(json.dumps([self.class_names, names, rows.lengths]).encode())
        digest.update(rows.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _decode_all(
        self, rows: ImageListing, progress: Progress | None
    ) -> tuple[Tensor, list[int]]:
        """Returns every readable image, (M, 3, S, S), and which they are."""
        total = len(rows.names)
        pixels = torch.empty((total, 3, self.size, self.size), dtype=torch.uint8)
        kept: list[int] = []
        for start in range(0, total, DECODED_AT_ONCE):
            part = range(start, min(start + DECODED_AT_ONCE, total))
            for index, image in zip(part, rows.decode(part), strict=True):
                if isinstance(image, UnreadableImage):
                    self._skip(index, rows.names[index], image)
                else:
                    pixels[len(kept)] = image
                    kept.append(index)
            if progress is not None:
                progress(f"reading {self._title}", part.stop, total)
        if not kept:
            raise self._nothing_readable(total)
        return pixels[: len(kept)], kept

    def _decode(self, indices: list[int]) -> list[Tensor | None]:
        """Returns the images, None where one is unreadable; those known to be are not tried."""
        fresh = [index for index in dict.fromkeys(indices) if index not in self._bad]
        found: dict[int, Tensor] = {}
        for index, image in zip(fresh, self._rows.decode(fresh), strict=True):
            if isinstance(image, UnreadableImage):
                self._skip(index, self.names[index], image)
            else:
                found[index] = image
        return [found.get(index) for index in indices]

    def _require_readable(self) -> None:
        """Tells of a source without readable images at once, after trying some all over it."""
        tried = evenly_spaced(len(self), IMAGES_TRIED).tolist()
        if all(self._decode([index])[0] is None for index in tried):
            raise self._nothing_readable(len(self))

    def _replacement(self, index: int) -> Tensor:
        """Returns the next readable image of the same class, else the next of any class.

        Of streamed images those of the same block come first, then those of the next.
        """
        stream = self._rows.stream
        for block in stream.from_block_of(index) if stream else [range(len(self))]:
            after = index + 1 - block.start if index in block else 0
            others = (torch.arange(len(block)) + after) % len(block) + block.start
            others = others[others != index]
            same = self.labels[others] == self.labels[index]
            for other in torch.cat([others[same], others[~same]]).tolist():
                image = self._decode([other])[0]
                if image is not None:
                    return image
        raise self._nothing_readable(len(self))

    def _skip(self, index: int, name: str, error: UnreadableImage) -> None:
        self._bad[index] = error
        self.reasons[name] = str(error)

    def _nothing_readable(self, total: int) -> ValueError:
        sides = [error.short_side for error in self._bad.values() if error.short_side is not None]
        tried = f"{total}" if len(self._bad) == total else f"{len(self._bad)} tried of {total}"
        if len(sides) == len(self._bad):
            return ValueError(
                f"All {tried} {self._title} are too small for size {self.size}: the short side "
                f"must be at least {math.ceil(self.size / 2)} pixels, the largest has "
                f"{max(sides)}; use larger images or a size of {2 * max(sides)} or less."
            )
        name, reason = next(iter(self.reasons.items()))
        return ValueError(
            f"None of the {tried} {self._title} could be read; the first, {name}: {reason}. "
            "Check that the files are complete images."
        )


@dataclass(frozen=True)
class ImageSplits:
    """The two splits of a source and the classes they share, () without labels."""

    train: ImageDataset
    validation: ImageDataset
    class_names: tuple[str, ...]

    def close(self) -> None:
        """Ends what reads ahead; no more is asked for."""
        self.train.close()
        self.validation.close()


def open_images(config: DataConfig, *, progress: Progress | None = None) -> ImageSplits:
    """Opens a source as a training and a validation split.

    A source that brings a validation split holds that out, else its test split; from one that
    brings neither, `validation_fraction` is chosen by a hash of the seed and each image's name,
    so that more images never move the others across.

    Arguments:
        config: Where the images come from and how they are made.
        progress: Called with what is done, how many are done, and of how many.
    """
    splits, in_memory = _split(config)
    train, validation = (
        ImageDataset(rows, size=config.size, in_memory=kept, title=title, progress=progress)
        for rows, title, kept in zip(splits, TITLES, in_memory, strict=True)
    )
    return ImageSplits(train=train, validation=validation, class_names=train.class_names)


def open_validation(config: DataConfig, *, progress: Progress | None = None) -> ImageDataset:
    """Opens the validation split of `open_images` alone: the same images, less to decode."""
    (_, rows), (_, in_memory) = _split(config)
    return ImageDataset(
        rows, size=config.size, in_memory=in_memory, title=TITLES[1], progress=progress
    )


def _split(config: DataConfig) -> tuple[tuple[ImageListing, ImageListing], tuple[bool, bool]]:
    """Returns what to train on and what to hold out, and which of them memory holds, decoded."""
    _check(config)
    if config.is_streamed:
        how = Streaming(config.size, config.window, config.validation_fraction, config.seed)
        train, validation = open_streamed(config.source, how)
    elif config.source == "synthetic":
        train, validation = synthetic_rows(config.synthetic_images, config.size, config.seed), None
    else:
        train, validation = open_source(config.source, config.size)
    if validation is None:
        train, validation = _hold_out(train, config.validation_fraction, config.seed)
    if train.class_names and not validation.class_names:
        raise ValueError(
            f"The training images of {config.source} have classes and the validation ones have "
            "none; sort those into the same sub-folders, or move their folder away."
        )
    if not train.class_names:
        validation = validation.without_labels()
    total = len(train.names) + len(validation.names)
    both = fits(total, config.size, config.memory_gib)
    held = fits(len(validation.names), config.size, config.memory_gib)
    return (train, validation), (False, held) if config.is_streamed else (both, both)


def load_folder(
    path: str | Path, size: int, *, memory_gib: float = 4.0, progress: Progress | None = None
) -> ImageDataset:
    """Opens every image in and below a folder as one split without labels.

    They are decoded now and kept in memory up to `memory_gib`, else on access.
    """
    rows = folder_rows(Path(path), list_images(Path(path)), size)
    in_memory = fits(len(rows.names), size, memory_gib)
    return ImageDataset(rows, size=size, in_memory=in_memory, progress=progress)


def fits(count: int, size: int, memory_gib: float) -> bool:
    """Whether so many decoded images fit into so much memory."""
    return count * 3 * size**2 <= memory_gib * 2**30


def image_files(path: str | Path) -> list[Path]:
    """Returns the images in and below a folder, in the order of `load_folder`."""
    return [Path(path, name) for name in list_images(Path(path))]


def _check(config: DataConfig) -> None:
    if config.size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {config.size}.")
    if not 0 < config.validation_fraction < 1:
        raise ValueError(
            f"validation_fraction must lie between 0 and 1, got {config.validation_fraction}; "
            "0.1 holds out every tenth image."
        )
    if config.window < 1:
        raise ValueError(f"window must be at least 1 image, got {config.window}.")
    if not config.source:
        raise ValueError("source is empty; name a folder, a hub data set or 'synthetic'.")


def _hold_out(rows: ImageListing, fraction: float, seed: int) -> tuple[ImageListing, ImageListing]:
    """Splits by a hash of each name, so that every image's side depends on itself alone."""
    if len(rows.names) < 2:
        raise ValueError(
            f"At least 2 images are needed, one to train on and one held out, got "
            f"{len(rows.names)} ({', '.join(rows.names)}); add images."
        )
    places = [_place(name, seed) for name in rows.names]
    world = sorted(range(len(places)), key=places.__getitem__)
    # However few the images and whatever the fraction, neither side stays empty.
    held = {index for index in world if places[index] < fraction} | {world[0]}
    held -= {world[-1]}
    train = [index for index in range(len(places)) if index not in held]
    return rows.select(train), rows.select(sorted(held))


def _place(name: str, seed: int) -> float:
    """Returns a number in [0, 1) that depends on (seed, name) alone."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64
