"""Streaming: images read from shards in blocks while they are used.

In memory are the labels, the positions of all blocks, and the encoded images of the blocks in use.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from itertools import accumulate
from threading import Lock
from typing import final, overload

import torch

from vqvae2.data.config import DataConfig
from vqvae2.data.decode import Decoded, decode_images
from vqvae2.data.listing import ImageListing, Label, hashed, sorted_labels
from vqvae2.data.order import BlockShuffle
from vqvae2.data.shards import Block, Encoded, Shard, read_block, read_shard, shard_urls
from vqvae2.data.tables import split_files

NUM_READERS = 8
"""Blocks that are read at the same time."""


def open_streamed(config: DataConfig) -> tuple[ImageListing, ImageListing]:
    """The training and the validation split of Parquet files or WebDataset tars.

    Shards belong to the split that their names say, or else to the training split.
    """
    urls, validation_urls = split_files(shard_urls(config.source))
    with ThreadPoolExecutor(NUM_READERS) as readers:
        shards = list(readers.map(read_shard, [*urls, *validation_urls]))
    train = labelled_blocks(shards[: len(urls)], config.source)
    if validation_urls:
        splits = train, labelled_blocks(shards[len(urls) :], config.source)
    else:
        splits = split_blocks(train, config)
    known = next((shard.class_names for shard in shards if shard.class_names), ())
    classes = class_labels(splits, known, config.source)
    first, second = (stream_listing(blocks, classes, config) for blocks in splits)
    return first, second


def labelled_blocks(shards: list[Shard], source: str) -> list[Block]:
    """The blocks of some shards; either all of their images have a label or none has."""
    blocks = [block for shard in shards for block in shard.blocks]
    if not blocks:
        raise ValueError(f"{source} holds no images; name shards that do.")
    missing = sum(label in (None, -1) for block in blocks for label in block.labels)
    stored = sum(len(block.labels) for block in blocks)
    total = sum(block.num_images for block in blocks)
    if missing == stored:
        return [replace(block, labels=()) for block in blocks]
    if missing or stored < total:
        raise ValueError(
            f"{missing + total - stored} of {total} images of {source} have no label; label "
            "them all, or none."
        )
    return blocks


def class_labels(
    splits: Sequence[Sequence[Block]], known: tuple[str, ...], source: str
) -> list[Label]:
    """The labels of all classes in order: those that shards name, then the others, sorted."""
    labels = {
        label
        for blocks in splits
        for block in blocks
        for label in block.labels
        if label is not None
    }
    kinds = sorted({type(label).__name__ for label in labels})
    if len(kinds) > 1:
        raise ValueError(
            f"The labels of {source} are of {len(kinds)} kinds ({', '.join(kinds)}); make them "
            "all names, or all numbers."
        )
    return [*known, *sorted_labels(labels - set(known))]


def split_blocks(blocks: list[Block], config: DataConfig) -> tuple[list[Block], list[Block]]:
    """Splits by a hash of each block's name; images in unread blocks cannot be split."""
    if len(blocks) < 2:
        raise ValueError(
            f"{config.source} holds a single block of {blocks[0].num_images} images, which cannot "
            "be split for validation; name a shard val-... or test-..., or write smaller row "
            "groups."
        )
    order = sorted(range(len(blocks)), key=lambda i: hashed(blocks[i].name(0), config.seed))
    count = min(max(1, round(config.validation_fraction * len(blocks))), len(blocks) - 1)
    train, validation = sorted(order[count:]), sorted(order[:count])
    return [blocks[i] for i in train], [blocks[i] for i in validation]


def stream_listing(blocks: list[Block], classes: list[Label], config: DataConfig) -> ImageListing:
    """The listing of some blocks, whose images are read and decoded on access."""
    numbers = {label: number for number, label in enumerate(classes)}
    labels = [numbers[label] for block in blocks for label in block.labels if label is not None]
    stream = ImageStream([replace(block, labels=()) for block in blocks], config.window)
    facts = blake2b(digest_size=16)
    for block in blocks:
        facts.update(f"{block.name(0)} {block.num_bytes} {block.num_images}\n".encode())
    return ImageListing(
        names=stream.names,
        labels=torch.tensor(labels) if labels else torch.zeros(len(stream.names)).long(),
        class_names=tuple(map(str, classes)) if labels else (),
        decode=lambda indices: stream.decode(indices, config.size),
        facts=f"streamed 1 {facts.hexdigest()}",
        stream=stream,
    )


@final
class ImageNames(Sequence[str]):
    """The names of the images of some blocks, made on access."""

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
class ImageStream:
    """Images in blocks; the blocks in use are in memory, encoded.

    Arguments:
        blocks: All blocks in their order.
        window: Number of images that are shuffled together.

    Attributes:
        names: Names of the images.
        order: The order of an epoch.
    """

    def __init__(self, blocks: list[Block], window: int) -> None:
        counts = tuple(block.num_images for block in blocks)
        *self._firsts, total = accumulate(counts, initial=0)
        largest = max(blocks, key=lambda block: block.num_images)
        if largest.num_images > window:
            raise ValueError(
                f"{largest.url} has {largest.num_images} images in one row group, which is read "
                f"at once, but the window is {window} images; write smaller row groups, or use a "
                "larger --data.window."
            )
        self._blocks = blocks
        self.names = ImageNames(blocks, self._firsts, total)
        self.order = BlockShuffle(counts, window // largest.num_images)
        # The window in use and the next one.
        self._capacity = 2 * self.order.window
        self._reads: OrderedDict[int, Future[list[Encoded]]] = OrderedDict()
        self._lock = Lock()
        self._readers = ThreadPoolExecutor(NUM_READERS)

    @property
    def prefetch_limit(self) -> int:
        """How many images ahead of its use an image may be prefetched without evicting others.

        Half of the images that a window has on average; the number of its blocks is chosen for the
        largest block.
        """
        return self.order.window * len(self.names) // len(self._blocks) // 2

    def close(self) -> None:
        """Cancels what is being prefetched, so that the program can end."""
        self._readers.shutdown(wait=False, cancel_futures=True)

    def blocks_from(self, index: int) -> Iterator[range]:
        """The indices in the block of an image, then in each following block, cyclically."""
        start = self._block_of(index)
        for number in [*range(start, len(self._blocks)), *range(start)]:
            first = self._firsts[number]
            yield range(first, first + self._blocks[number].num_images)

    def prefetch(self, indices: Sequence[int]) -> None:
        """Starts to read the blocks of these images."""
        self._request(list(dict.fromkeys(map(self._block_of, indices))))

    def decode(self, indices: Sequence[int], size: int) -> Decoded:
        """Reads the blocks that are not in memory and decodes the given images."""
        by_block: dict[int, list[int]] = {}
        for index in indices:
            by_block.setdefault(self._block_of(index), []).append(index)
        encoded: dict[int, Encoded] = {}
        numbers = list(by_block)
        # At most a window at a time, so that one call never exceeds the memory for blocks.
        for first in range(0, len(numbers), self.order.window):
            part = numbers[first : first + self.order.window]
            for number, future in self._request(part).items():
                images = future.result()
                encoded |= {i: images[i - self._firsts[number]] for i in by_block[number]}
        sources = [encoded[index] for index in indices]
        decoded = iter(decode_images([s for s in sources if isinstance(s, bytes)], size))
        return [next(decoded) if isinstance(s, bytes) else s for s in sources]

    def _block_of(self, index: int) -> int:
        return bisect_right(self._firsts, index) - 1

    def _request(self, numbers: list[int]) -> dict[int, Future[list[Encoded]]]:
        """Reads of some blocks, done or in progress; the least recently used are evicted."""
        with self._lock:
            for number in numbers:
                read = self._reads.get(number)
                # A failed prefetch is repeated.
                if read is None or (read.done() and read.exception() is not None):
                    block = self._blocks[number]
                    self._reads[number] = self._readers.submit(read_block, block)
                self._reads.move_to_end(number)
            reads = {number: self._reads[number] for number in numbers}
            while len(self._reads) > max(self._capacity, len(numbers)):
                self._reads.popitem(last=False)
        return reads
