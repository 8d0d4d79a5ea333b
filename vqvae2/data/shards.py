"""Shards of images as files: Parquet, and tars in the manner of WebDataset.

A shard is listed once, by its footer or its headers, as blocks: what is read at once, a row group
or some hundred samples that follow one another. Paths are fsspec's: s3://, gs://, hf://, https://,
..., or none of these for this machine.
"""

import io
import json
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import has_magic
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

from vqvae2.configuration import from_dict, to_dict
from vqvae2.data.decode import UnreadableImage, one_line
from vqvae2.data.folders import SUFFIXES
from vqvae2.data.listing import missing, suffix
from vqvae2.data.tables import LABEL_COLUMNS, SHARD_KINDS, image_column, label_column
from vqvae2.files import cache_folder, read_json, write_json

SAMPLES_A_BLOCK = 256
"""Of a tar; a Parquet file says itself how many rows a group of it has."""

TRIES, PAUSE = 5, 1.0
"""How often a block far away is asked for, and seconds until the second time; then twice those."""

LISTING, LISTING_VERSION = "vqvae2-tar", 1
"""What a tar holds, kept in the cache: to find out, one walks through all of it."""


@dataclass(frozen=True)
class Block:
    """Images that are read at once, and their labels.

    Arguments:
        url: of the shard.
        first, end: row groups of a Parquet file, bytes of a tar.
        start: number of its first image in the shard.
        count: images.
        num_bytes: of all their columns, or files.
        column: where a Parquet file has them.
        labels: as they stand, () without labels.
    """

    url: str
    first: int
    end: int
    start: int
    count: int
    num_bytes: int
    column: str = ""
    labels: tuple[int | str | bool | None, ...] = ()

    def name(self, number: int) -> str:
        """What one of its images is called: its shard and its place there."""
        return f"{self.url.rsplit('/', 1)[-1]}#{self.start + number}"


@dataclass(frozen=True)
class Shard:
    """What a shard holds.

    Arguments:
        blocks: its images in their order.
        class_names: what integer labels are called, if the shard says so.
    """

    blocks: tuple[Block, ...]
    class_names: tuple[str, ...] = ()


class OutOfReach(Exception):
    """Bytes that could not be had, which says nothing about them."""


@contextmanager
def reaching() -> Iterator[None]:
    """Tells what keeps bytes from being had from what is wrong with them."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # of whatever serves the path
        raise OutOfReach(one_line(error)) from error


class Reached:
    """A file whose reading fails as `OutOfReach`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Some of its bytes."""
        with reaching():
            return self._file.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def opened(url: str) -> Iterator[Reached]:
    """A file, here or far away."""
    system, path = file_system(url)
    with reaching():
        file = system.open(path, "rb")
    with file:
        yield Reached(file)


def read_block(block: Block) -> list[bytes | UnreadableImage]:
    """The encoded images of a block.

    What is far away is asked for some times. A block whose bytes can be had and make no sense is
    damaged: its images are, then. Raises ValueError where the bytes are out of reach.
    """
    reason: Exception
    for number in range(TRIES):
        try:
            return read_rows(block) if block.column else read_samples(block)
        except MemoryError:
            raise
        except Exception as error:  # also of the format's reader
            reason = error
            if is_local(block.url):
                break
            if number + 1 < TRIES:
                time.sleep(PAUSE * 2**number)
    if isinstance(reason, OutOfReach):
        raise ValueError(
            f"{block.url} is out of reach ({reason}); everything up to the last checkpoint is "
            "kept: repeat the command when it is back."
        ) from reason
    damage = UnreadableImage(f"its block cannot be read: {one_line(reason)}")
    return [damage] * block.count


def read_rows(block: Block) -> list[bytes | UnreadableImage]:
    """The images of row groups of a Parquet file."""
    import pyarrow.parquet as parquet

    with opened(block.url) as file, parquet.ParquetFile(file) as table:
        groups = list(range(block.first, block.end))
        cells = table.read_row_groups(groups, columns=[block.column])[block.column].to_pylist()
    if len(cells) != block.count:
        raise ValueError(f"expected {block.count} rows, got {len(cells)}")
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
    return [
        cell
        if isinstance(cell, bytes) and cell
        else UnreadableImage("the row holds no image's bytes")
        for cell in cells
    ]


def read_samples(block: Block) -> list[bytes | UnreadableImage]:
    """The images of samples of a tar that follow one another."""
    system, path = file_system(block.url)
    with reaching():
        held = system.cat_file(path, start=block.first, end=block.end)
    # Two empty records end an archive.
    file = io.BytesIO(held + bytes(1024))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        found = [sample.image for sample in samples_of(archive) if sample.image is not None]
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
        groups = [table.metadata.row_group(i) for i in range(table.num_row_groups)]
        counts = [group.num_rows for group in groups]
        sizes = [
            sum(group.column(c).total_compressed_size for c in range(group.num_columns))
            for group in groups
        ]
    names = tuple(getattr(features[label], "names", None) or ()) if label else ()
    if names:
        # By name: another shard may number them otherwise.
        labels = [None if one is None or one < 0 else names[one] for one in labels]
    firsts = [0, *accumulate(counts)]
    blocks = [
        Block(
            url, i, i + 1, firsts[i], count, sizes[i], column,
            tuple(labels[firsts[i] : firsts[i + 1]]),
        )
        for i, count in enumerate(counts)
        if count
    ]  # fmt: skip
    return Shard(tuple(blocks), names)


def read_tar(url: str) -> Shard:
    """What a tar holds, from the cache if it was walked through before."""
    system, path = file_system(url)
    # Whatever the file system knows of a file: its length and time, or its etag.
    facts = sorted((name, str(value)) for name, value in system.info(path).items())
    key = blake2b(f"{url} {facts}".encode(), digest_size=16).hexdigest()
    kept = cache_folder() / "shards" / f"{key}.json"
    try:
        return from_dict(Shard, read_json(kept, LISTING, LISTING_VERSION), str(kept))
    except (ValueError, OSError, KeyError):
        blocks = tuple(walk_tar(url))
    with suppress(OSError):  # a cache that cannot be written only costs time
        write_json(kept, LISTING, LISTING_VERSION, to_dict(Shard(blocks)))
    return Shard(blocks)


def walk_tar(url: str) -> Iterator[Block]:
    """The blocks of a tar, by its headers."""
    system, path = file_system(url)
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        first = end = start = count = 0
        labels: list[Any] = []
        for sample in samples_of(archive):
            if sample.image is None:
                continue
            if count == SAMPLES_A_BLOCK:
                yield Block(url, first, end, start, count, end - first, labels=tuple(labels))
                first, start, count, labels = sample.first, start + count, 0, []
            count, end = count + 1, sample.end
            label = read_label(archive, sample)
            if label is not None:
                labels.append(label)
        file.seek(archive.offset)
        mark = file.read(512)
        if len(mark) < 512 or any(mark):
            raise ValueError(f"it ends after {start + count} samples without its end mark")
        if count:
            yield Block(url, first, end, start, count, end - first, labels=tuple(labels))


@dataclass
class Sample:
    """Files of a tar that follow one another under one name.

    Arguments:
        key: the name, up to the first dot behind the folders.
        first, end: its bytes in the tar.
        image: the first of its files that is one.
        label: the file that tells its label.
    """

    key: str
    first: int
    end: int
    image: tarfile.TarInfo | None = None
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
        if sample.image is None and f".{ending.lower()}" in SUFFIXES:
            sample.image = member
        elif ending.lower() == "cls" or (ending.lower() == "json" and sample.label is None):
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

    return url_to_fs(url)


def is_local(url: str) -> bool:
    """Whether a path lies on this machine."""
    return "://" not in url or url.startswith("file://")
