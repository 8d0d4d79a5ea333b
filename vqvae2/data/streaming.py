"""Shards read where they lie, some blocks at a time.

Of all images only the labels and where their blocks lie are held; images are held, as they are
encoded, for the blocks in use.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import accumulate
from threading import Lock
from typing import Any, final, overload

import torch

from vqvae2.data.decode import Decoded, UnreadableImage, decode_images
from vqvae2.data.listing import VALIDATION_NAMES, ImageListing, Splits
from vqvae2.data.order import BlockShuffle
from vqvae2.data.shards import Block, Shard, read_block, read_shard, shard_urls
from vqvae2.data.tables import split_of

READERS = 8
"""Blocks that are read at the same time."""


@dataclass(frozen=True)
class Streaming:
    """How shards become splits.

    Arguments:
        size: side of the square images, pixels.
        window: images that are shuffled together; about two windows are held, encoded.
        validation_fraction: share of the blocks held out if no shard is named as held out.
        seed: of that choice.
    """

    size: int
    window: int
    validation_fraction: float
    seed: int


def open_streamed(source: str, streaming: Streaming) -> Splits:
    """Opens Parquet files or WebDataset tars, here or far away; their names tell the splits."""
    groups: dict[str, list[str]] = {}
    for url in shard_urls(source):
        groups.setdefault(split_of(url), []).append(url)
    if "train" not in groups:  # nothing but a test split: that is what there is to learn from
        groups = {"train": [url for name in sorted(groups) for url in groups[name]]}
    others = next((groups[name] for name in VALIDATION_NAMES if name in groups), [])
    with ThreadPoolExecutor(READERS) as readers:
        shards = list(readers.map(read_shard, [*groups["train"], *others]))
    count = len(groups["train"])
    train = blocks_of(shards[:count], source)
    if others:
        splits = train, blocks_of(shards[count:], source)
    else:
        splits = hold_out(train, source, streaming)
    known = next((shard.class_names for shard in shards if shard.class_names), ())
    values: set[Any] = {label for split in splits for block in split for label in block.labels}
    kinds = {type(value).__name__ for value in values}
    if len(kinds) > 1:
        raise ValueError(
            f"The labels of {source} are of {len(kinds)} kinds ({', '.join(sorted(kinds))}); make "
            "them all names, or all numbers."
        )
    ordered: list[Any] = [*known, *sorted(values - set(known))]
    numbers = {value: number for number, value in enumerate(ordered)}
    names = tuple(map(str, ordered))
    first, second = (stream_rows(split, names, numbers, streaming) for split in splits)
    return first, second


def blocks_of(shards: list[Shard], source: str) -> list[Block]:
    """The blocks of some shards; their labels are all there, or are all left out."""
    blocks = [block for shard in shards for block in shard.blocks]
    if not blocks:
        raise ValueError(f"{source} holds no images; name shards that do.")
    missing = sum(label in (None, -1) for block in blocks for label in block.labels)
    labelled = sum(len(block.labels) for block in blocks)
    total = sum(block.count for block in blocks)
    if missing == labelled:
        return [replace(block, labels=()) for block in blocks]
    if missing or labelled < total:
        raise ValueError(
            f"{missing + total - labelled} of {total} images of {source} have no label; label "
            "them all, or none."
        )
    return blocks


def hold_out(
    blocks: list[Block], source: str, streaming: Streaming
) -> tuple[list[Block], list[Block]]:
    """Splits by a hash of each block's name: what is not opened cannot be split finer."""
    if len(blocks) < 2:
        raise ValueError(
            f"{source} holds a single block of {blocks[0].count} images, and nothing says what "
            "to hold out; name a shard val-... or test-..., or write smaller row groups."
        )

    def place(block: Block) -> int:
        key = f"{streaming.seed}/{block.name(0)}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest())

    ranked = sorted(blocks, key=place)
    count = min(max(1, round(streaming.validation_fraction * len(blocks))), len(blocks) - 1)
    validation = {(block.url, block.start) for block in ranked[:count]}
    return (
        [block for block in blocks if (block.url, block.start) not in validation],
        [block for block in blocks if (block.url, block.start) in validation],
    )


def stream_rows(
    blocks: list[Block], class_names: tuple[str, ...], numbers: dict[Any, int], how: Streaming
) -> ImageListing:
    """Blocks as a split, whose images are read and decoded when they are asked for."""
    labels = [numbers[label] for block in blocks for label in block.labels]
    labelled = bool(labels)
    stream = Stream([replace(block, labels=()) for block in blocks], how.window)
    facts = blake2b(digest_size=16)
    for block in blocks:
        facts.update(f"{block.name(0)} {block.num_bytes} {block.count}\n".encode())
    return ImageListing(
        names=stream.names,
        labels=torch.tensor(labels) if labelled else torch.zeros(len(stream.names)).long(),
        class_names=class_names if labelled else (),
        decode=lambda indices: stream.decode(indices, how.size),
        lengths=[],
        facts=f"streamed 1 {facts.hexdigest()}",
        stream=stream,
    )


@final
class Names(Sequence[str]):
    """Names of the images of some blocks, made when they are asked for."""

    def __init__(self, blocks: Sequence[Block], firsts: list[int], count: int) -> None:
        self._blocks, self._firsts, self._count = blocks, firsts, count

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[number] for number in range(self._count)[index]]
        number = range(self._count)[index]
        block = bisect_right(self._firsts, number) - 1
        return self._blocks[block].name(number - self._firsts[block])


@final
class Stream:
    """Images in blocks, of which those in use are held, encoded.

    Arguments:
        blocks: in their order.
        window: images that are shuffled together.

    Attributes:
        names: of the images.
        order: of any epoch.
    """

    def __init__(self, blocks: list[Block], window: int) -> None:
        counts = tuple(block.count for block in blocks)
        *self._firsts, total = accumulate(counts, initial=0)
        largest = max(blocks, key=lambda block: block.count)
        if largest.count > window:
            raise ValueError(
                f"{largest.url} has {largest.count} images in one row group, which is read at "
                f"once, and a window holds {window}; write smaller row groups, or use a larger "
                "--data.window."
            )
        self._blocks = blocks
        self.names = Names(blocks, self._firsts, total)
        self.order = BlockShuffle(counts, window // largest.count)
        # A window that is being used up and the one after it.
        self._capacity = 2 * self.order.window
        self._held: OrderedDict[int, Future[list[bytes | UnreadableImage]]] = OrderedDict()
        self._lock = Lock()
        self._readers = ThreadPoolExecutor(READERS)

    @property
    def ahead(self) -> int:
        """Images before its turn that one may be asked for without pushing others out.

        Half of what a window holds: blocks may be smaller than the largest, by which their number
        goes.
        """
        return self.order.window * len(self.names) // len(self._blocks) // 2

    def close(self) -> None:
        """Reads nothing more of what was asked for ahead, so that a program can end."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def from_block_of(self, index: int) -> Iterator[range]:
        """The images of a image's block, then those of the next, and so on around."""
        own = self._block_of(index)
        for number in [*range(own, len(self._blocks)), *range(own)]:
            first = self._firsts[number]
            yield range(first, first + self._blocks[number].count)

    def expect(self, indices: Sequence[int]) -> None:
        """Begins to read the blocks of images that will be asked for."""
        self._futures(list(dict.fromkeys(map(self._block_of, indices))))

    def decode(self, indices: Sequence[int], size: int) -> Decoded:
        """Reads the blocks that are not held and decodes some of their images."""
        wanted: dict[int, list[int]] = {}
        for index in indices:
            wanted.setdefault(self._block_of(index), []).append(index)
        read: dict[int, bytes | UnreadableImage] = {}
        numbers = list(wanted)
        for first in range(0, len(numbers), self.order.window):  # no more are held for one call
            for number, future in self._futures(numbers[first:][: self.order.window]).items():
                dataset = future.result()
                read |= {i: dataset[i - self._firsts[number]] for i in wanted[number]}
        found = [read[index] for index in indices]
        whole = [source for source in found if isinstance(source, bytes)]
        decoded = iter(decode_images(whole, size))
        return [next(decoded) if isinstance(source, bytes) else source for source in found]

    def _block_of(self, index: int) -> int:
        return bisect_right(self._firsts, index) - 1

    def _futures(self, numbers: list[int]) -> dict[int, Future[list[bytes | UnreadableImage]]]:
        """The images of some blocks, held or on their way; the least used are let go."""
        with self._lock:
            for number in numbers:
                held = self._held.get(number)
                # One that could not be read when it was expected is asked for again.
                if held is None or (held.done() and held.exception() is not None):
                    block = self._blocks[number]
                    self._held[number] = self._readers.submit(read_block, block)
                self._held.move_to_end(number)
            found = {number: self._held[number] for number in numbers}
            while len(self._held) > max(self._capacity, len(numbers)):
                self._held.popitem(last=False)
        return found
