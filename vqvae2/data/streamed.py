"""Shards read where they lie, here or far away, some blocks at a time.

A block is what is read at once: a row group of a Parquet file, or some hundred samples that follow
one another in a WebDataset tar. Of all pictures only the labels and where their blocks lie are
held; pictures are held, as they are encoded, for the blocks in use. Paths are fsspec's: s3://,
gs://, hf://, https://, ..., or none of these for this machine.
"""

import io
import json
import tarfile
import time
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from glob import has_magic
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, final, overload

import torch

from vqvae2.configuration import cache_folder, from_dict, read_json, to_dict, write_json
from vqvae2.data.decode import Decoded, UnreadablePicture, decode_pictures, one_line
from vqvae2.data.folders import SUFFIXES
from vqvae2.data.order import BlockShuffle
from vqvae2.data.rows import HELD_OUT_NAMES, Rows, Splits, missing, suffix
from vqvae2.data.tables import LABEL_COLUMNS, SHARD_KINDS, image_column, label_column, split_of

SAMPLES_A_BLOCK = 256
"""Of a tar; a Parquet file says itself how many rows a group of it has."""

READERS = 8
"""Blocks that are read at the same time."""

TRIES, PAUSE = 5, 1.0
"""How often a block far away is asked for, and seconds until the second time; then twice those."""

LISTING, LISTING_VERSION = "vqvae2-tar", 1
"""What a tar holds, kept in the cache: to find out, one walks through all of it."""


@dataclass(frozen=True)
class Streaming:
    """How shards become splits.

    Arguments:
        size: side of the square pictures, pixels.
        window: pictures that are shuffled together; about two windows are held, encoded.
        held_out_fraction: share of the blocks held out if no shard is named as held out.
        seed: of that choice.
    """

    size: int
    window: int
    held_out_fraction: float
    seed: int


@dataclass(frozen=True)
class Block:
    """Pictures that are read at once, and their labels.

    Arguments:
        url: of the shard.
        first, end: row groups of a Parquet file, bytes of a tar.
        start: number of its first picture in the shard.
        count: pictures.
        column: where a Parquet file has them.
        labels: as they stand, () without labels.
    """

    url: str
    first: int
    end: int
    start: int
    count: int
    column: str = ""
    labels: tuple[int | str | bool | None, ...] = ()

    def name(self, number: int) -> str:
        """What one of its pictures is called: its shard and its place there."""
        return f"{self.url.rsplit('/', 1)[-1]}#{self.start + number}"


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Arguments:
        blocks: its pictures in their order.
        class_names: what integer labels are called, if the shard says so.
    """

    blocks: tuple[Block, ...]
    class_names: tuple[str, ...] = ()


def open_streamed(source: str, streaming: Streaming) -> Splits:
    """Opens Parquet files or WebDataset tars, here or far away; their names tell the splits."""
    groups: dict[str, list[str]] = {}
    for url in shard_urls(source):
        groups.setdefault(split_of(url), []).append(url)
    if "train" not in groups:  # nothing but a test split: that is what there is to learn from
        groups = {"train": [url for name in sorted(groups) for url in groups[name]]}
    others = next((groups[name] for name in HELD_OUT_NAMES if name in groups), [])
    with ThreadPoolExecutor(READERS) as readers:
        shards = list(readers.map(read_shard, [*groups["train"], *others]))
    count = len(groups["train"])
    train = blocks_of(shards[:count], source)
    if others:
        splits = train, blocks_of(shards[count:], source)
    else:
        splits = hold_out(train, source, streaming)
    known = next((shard.class_names for shard in shards if shard.class_names), ())
    values = {label for split in splits for block in split for label in block.labels}
    ordered: Sequence[Any] = range(len(known)) if known else sorted(values)
    numbers = {value: number for number, value in enumerate(ordered)}
    names = tuple(known or map(str, ordered))
    first, second = (stream_rows(split, names, numbers, streaming) for split in splits)
    return first, second


def blocks_of(shards: list[Shard], source: str) -> list[Block]:
    """The blocks of some shards; their labels are all there, or are all left out."""
    blocks = [block for shard in shards for block in shard.blocks]
    if not blocks:
        raise ValueError(f"{source} holds no pictures; name shards that do.")
    missing = sum(label in (None, -1) for block in blocks for label in block.labels)
    labelled = sum(len(block.labels) for block in blocks)
    total = sum(block.count for block in blocks)
    if missing == labelled:
        return [replace(block, labels=()) for block in blocks]
    if missing or labelled < total:
        raise ValueError(
            f"{missing + total - labelled} of {total} pictures of {source} have no label; label "
            "them all, or none."
        )
    return blocks


def hold_out(
    blocks: list[Block], source: str, streaming: Streaming
) -> tuple[list[Block], list[Block]]:
    """Splits by a hash of each block's name: what is not opened cannot be split finer."""
    if len(blocks) < 2:
        raise ValueError(
            f"{source} holds a single block of {blocks[0].count} pictures, and nothing says what "
            "to hold out; name a shard val-... or test-..., or write smaller row groups."
        )

    def place(block: Block) -> int:
        key = f"{streaming.seed}/{block.name(0)}".encode()
        return int.from_bytes(blake2b(key, digest_size=8).digest())

    ranked = sorted(blocks, key=place)
    count = min(max(1, round(streaming.held_out_fraction * len(blocks))), len(blocks) - 1)
    held_out = {(block.url, block.start) for block in ranked[:count]}
    return (
        [block for block in blocks if (block.url, block.start) not in held_out],
        [block for block in blocks if (block.url, block.start) in held_out],
    )


def stream_rows(
    blocks: list[Block], class_names: tuple[str, ...], numbers: dict[Any, int], how: Streaming
) -> Rows:
    """Blocks as a split, whose pictures are read and decoded when they are asked for."""
    labels = [numbers[label] for block in blocks for label in block.labels]
    labelled = bool(labels)
    stream = Stream([replace(block, labels=()) for block in blocks], how.window)
    facts = blake2b(digest_size=16)
    for block in blocks:
        facts.update(f"{block.name(0)} {block.end - block.first} {block.count}\n".encode())
    return Rows(
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
    """Names of the pictures of some blocks, made when they are asked for."""

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
    """Pictures in blocks, of which those in use are held, encoded.

    Arguments:
        blocks: in their order.
        window: pictures that are shuffled together.

    Attributes:
        names: of the pictures.
        order: of any epoch.
    """

    def __init__(self, blocks: list[Block], window: int) -> None:
        counts = tuple(block.count for block in blocks)
        *self._firsts, total = accumulate(counts, initial=0)
        self._blocks = blocks
        self.names = Names(blocks, self._firsts, total)
        self.order = BlockShuffle(counts, max(1, round(window * len(blocks) / total)))
        # A window that is being used up and the one after it.
        self._capacity = 2 * self.order.window
        self._held: OrderedDict[int, Future[list[bytes | UnreadablePicture]]] = OrderedDict()
        self._lock = Lock()
        self._readers = ThreadPoolExecutor(READERS)

    def around(self, index: int) -> range:
        """The pictures of a picture's block."""
        number = self._block_of(index)
        first = self._firsts[number]
        return range(first, first + self._blocks[number].count)

    def expect(self, indices: Sequence[int]) -> None:
        """Begins to read the blocks of pictures that will be asked for."""
        self._futures(dict.fromkeys(map(self._block_of, indices)))

    def decode(self, indices: Sequence[int], size: int) -> Decoded:
        """Reads the blocks that are not held and decodes some of their pictures."""
        numbers = [self._block_of(index) for index in indices]
        futures = self._futures(dict.fromkeys(numbers))
        found = []
        for index, number in zip(indices, numbers, strict=True):
            try:
                found.append(futures[number].result()[index - self._firsts[number]])
            except BaseException:
                with self._lock:  # asked again, it is read again
                    self._held.pop(number, None)
                raise
        whole = [source for source in found if isinstance(source, bytes)]
        decoded = iter(decode_pictures(whole, size))
        return [next(decoded) if isinstance(source, bytes) else source for source in found]

    def _block_of(self, index: int) -> int:
        return bisect_right(self._firsts, index) - 1

    def _futures(
        self, numbers: dict[int, None]
    ) -> dict[int, Future[list[bytes | UnreadablePicture]]]:
        """The pictures of some blocks, held or on their way; the least used are let go."""
        with self._lock:
            for number in numbers:
                if number not in self._held:
                    block = self._blocks[number]
                    self._held[number] = self._readers.submit(read_block, block)
                self._held.move_to_end(number)
            found = {number: self._held[number] for number in numbers}
            while len(self._held) > max(self._capacity, len(numbers)):
                self._held.popitem(last=False)
        return found


def read_block(block: Block) -> list[bytes | UnreadablePicture]:
    """The encoded pictures of a block.

    What is far away is asked for some times. A block that stays unreadable in a shard that can be
    reached is damaged: its pictures are, then. Raises ValueError where the shard is out of reach.
    """
    for number in range(TRIES):
        try:
            return read_rows(block) if block.column else read_samples(block)
        except Exception as error:  # of whatever serves the path, and of the format's reader
            reason = error
            if is_local(block.url):
                break
            time.sleep(PAUSE * 2**number)
    system, path = file_system(block.url)
    try:
        system.info(path)
    except Exception as error:
        raise ValueError(
            f"{block.url} is out of reach ({one_line(error)}); everything up to the last "
            "checkpoint is kept: repeat the command when it is back."
        ) from error
    damage = UnreadablePicture(f"its block cannot be read: {one_line(reason)}")
    return [damage] * block.count


def read_rows(block: Block) -> list[bytes | UnreadablePicture]:
    """The pictures of row groups of a Parquet file."""
    import pyarrow.parquet as parquet

    system, path = file_system(block.url)
    with system.open(path, "rb") as file, parquet.ParquetFile(file) as table:
        groups = list(range(block.first, block.end))
        cells = table.read_row_groups(groups, columns=[block.column])[block.column].to_pylist()
    if len(cells) != block.count:
        raise ValueError(f"expected {block.count} rows, got {len(cells)}")
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
    return [cell or UnreadablePicture("the row holds no picture") for cell in cells]


def read_samples(block: Block) -> list[bytes | UnreadablePicture]:
    """The pictures of samples of a tar that follow one another."""
    system, path = file_system(block.url)
    held = system.cat_file(path, start=block.first, end=block.end)
    # Two empty records end an archive.
    file = io.BytesIO(held + bytes(1024))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        found = [sample.picture for sample in samples_of(archive) if sample.picture is not None]
        if len(found) != block.count:
            raise ValueError(f"expected {block.count} samples, got {len(found)}")
        return [archive.extractfile(member).read() for member in found]  # type: ignore[union-attr]


def read_shard(url: str) -> Shard:
    """What a shard holds; ValueError in one line if it cannot be read."""
    try:
        return read_footer(url) if suffix(url) == ".parquet" else read_tar(url)
    except Exception as error:  # of whatever serves the path, and of the format's reader
        raise ValueError(f"{url} cannot be read as a shard: {one_line(error)}.") from error


def read_footer(url: str) -> Shard:
    """What a Parquet file holds: its footer, and its column of labels."""
    import pyarrow.parquet as parquet
    from datasets import Features

    system, path = file_system(url)
    with system.open(path, "rb") as file, parquet.ParquetFile(file) as table:
        features = Features.from_arrow_schema(table.schema_arrow)
        column, label = image_column(features, url), label_column(features)
        labels = table.read(columns=[label])[label].to_pylist() if label else []
        counts = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
    firsts = [0, *accumulate(counts)]
    blocks = [
        Block(url, i, i + 1, firsts[i], count, column, tuple(labels[firsts[i] : firsts[i + 1]]))
        for i, count in enumerate(counts)
        if count
    ]
    names = getattr(features[label], "names", None) if label else None
    return Shard(tuple(blocks), tuple(names or ()))


def read_tar(url: str) -> Shard:
    """What a tar holds, from the cache if it was walked through before."""
    system, path = file_system(url)
    # The file system's own sign that a file is another: its length and time, or its etag.
    key = blake2b(f"{url} {system.ukey(path)}".encode(), digest_size=16).hexdigest()
    kept = cache_folder() / "shards" / f"{key}.json"
    try:
        listed = read_json(kept, LISTING, LISTING_VERSION)["blocks"]
        return Shard(tuple(from_dict(Block, block, str(kept)) for block in listed))
    except (ValueError, OSError, KeyError):
        blocks = tuple(walk_tar(url))
    with suppress(OSError):  # a cache that cannot be written only costs time
        write_json(kept, LISTING, LISTING_VERSION, {"blocks": to_dict(blocks)})
    return Shard(blocks)


def walk_tar(url: str) -> Iterator[Block]:
    """The blocks of a tar, by its headers."""
    system, path = file_system(url)
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        first = end = start = count = 0
        labels: list[Any] = []
        for sample in samples_of(archive):
            if sample.picture is None:
                continue
            if count == SAMPLES_A_BLOCK:
                yield Block(url, first, end, start, count, labels=tuple(labels))
                first, start, count, labels = sample.first, start + count, 0, []
            count, end = count + 1, sample.end
            label = read_label(archive, sample)
            if label is not None:
                labels.append(label)
        if count:
            yield Block(url, first, end, start, count, labels=tuple(labels))


@dataclass
class Sample:
    """Files of a tar that follow one another under one name.

    Arguments:
        key: the name, up to the first dot behind the folders.
        first, end: its bytes in the tar.
        picture: the first of its files that is one.
        label: the file that tells its label.
    """

    key: str
    first: int
    end: int
    picture: tarfile.TarInfo | None = None
    label: tarfile.TarInfo | None = None


def samples_of(archive: tarfile.TarFile) -> Iterator[Sample]:
    """The samples of a tar, in their order (the convention of WebDataset)."""
    sample: Sample | None = None
    for member in archive:
        archive.members = []  # type: ignore[attr-defined] # it would keep them all
        if not member.isreg():
            continue
        folder, _, file = member.name.rpartition("/")
        name, _, ending = file.partition(".")
        key, end = f"{folder}/{name}", member.offset_data + -(-member.size // 512) * 512
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key, member.offset, end)
        sample.end = end
        if sample.picture is None and f".{ending.lower()}" in SUFFIXES:
            sample.picture = member
        elif ending.lower() in ("cls", "json"):
            sample.label = member
    if sample is not None:
        yield sample


def read_label(archive: tarfile.TarFile, sample: Sample) -> int | str | None:
    """The label of a sample, from its .cls or .json."""
    if sample.label is None:
        return None
    file = archive.extractfile(sample.label)
    text = file.read().decode(errors="replace").strip() if file else ""
    if sample.label.name.lower().endswith(".json"):
        content = json.loads(text)
        found = [content[name] for name in LABEL_COLUMNS if name in content]
        return found[0] if found and isinstance(found[0], int | str) else None
    return int(text) if text.lstrip("-").isdigit() else text


def shard_urls(source: str) -> list[str]:
    """The shards that a path, a folder or a pattern names."""
    try:
        system, path = file_system(source)
        if has_magic(source):
            found = [system.unstrip_protocol(one) for one in sorted(system.glob(path))]
        elif suffix(source) in SHARD_KINDS:
            found = [source]
        else:
            found = [system.unstrip_protocol(one) for one in sorted(system.find(path))]
    except Exception as error:  # of whatever serves the path
        raise ValueError(f"{source} cannot be reached: {one_line(error)}.") from error
    shards = [url for url in found if suffix(url) in SHARD_KINDS]
    if not found and is_local(source):
        raise ValueError(missing(Path(source)))
    if not shards or len({suffix(url) for url in shards}) > 1:
        raise ValueError(
            f"Streaming reads .parquet files or .tar shards, one kind at a time; {source} gives "
            f"{' and '.join(sorted({suffix(url) for url in shards})) or 'neither'}."
        )
    return shards


def file_system(url: str) -> tuple[Any, str]:
    """What serves a path, and the path as it knows it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)  # type: ignore[no-any-return]


def is_local(url: str) -> bool:
    """Whether a path lies on this machine."""
    return "://" not in url or url.startswith("file://")
