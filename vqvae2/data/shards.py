"""Shards of images: Parquet files and WebDataset tars, local or remote, read in blocks.

A shard is listed once, from its footer or its headers, as blocks: a row group of a Parquet file,
or some hundred consecutive samples of a tar. Paths are those of fsspec: s3://, gs://, hf://,
https://, ..., or local paths.
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
from typing import IO, TYPE_CHECKING

from vqvae2.configuration import from_dict, to_dict
from vqvae2.data.decode import UnusableImage
from vqvae2.data.folders import SUFFIXES
from vqvae2.data.listing import Label, missing_path, suffix
from vqvae2.data.tables import LABEL_COLUMNS, SHARD_KINDS, image_column, label_column
from vqvae2.files import cache_folder, read_json, write_json
from vqvae2.messages import one_line

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

SAMPLES_PER_BLOCK = 256
"""Samples of a tar that are read at once; a Parquet file is read by row groups."""

NUM_TRIES = 5
"""How often a remote block is requested."""

RETRY_SECONDS = 1.0
"""Pause before the second try; it doubles with every further one."""

LISTING, LISTING_VERSION = "vqvae2-tar", 2
"""Format of a tar's listing in the cache; to make it, all headers of the tar are read."""

Encoded = bytes | UnusableImage
"""The bytes of an image file, or why there are none."""


@dataclass(frozen=True)
class Block:
    """Consecutive images of a shard that are read at once.

    Arguments:
        url: The shard.
        begin: First row group of a Parquet file, or first byte of a tar.
        end: One past the last row group or byte.
        first: Index of the first image in the shard.
        num_images: Number of images.
        num_bytes: Size of the block with all columns or files.
        column: The image column of a Parquet file, "" for a tar.
        labels: One per image as stored, None where it is missing; () without labels.
    """

    url: str
    begin: int
    end: int
    first: int
    num_images: int
    num_bytes: int
    column: str = ""
    labels: tuple[Label | None, ...] = ()

    def name(self, position: int) -> str:
        """The name of an image: its shard and its index there."""
        return f"{self.url.rsplit('/', 1)[-1]}#{self.first + position}"


@dataclass(frozen=True)
class Shard:
    """The content of a shard.

    Arguments:
        blocks: All images, in their order.
        class_names: Names of integer labels, if the shard has them.
    """

    blocks: tuple[Block, ...]
    class_names: tuple[str, ...] = ()


class UnreachableError(Exception):
    """Storage cannot be read now, which says nothing about the bytes in it."""


@contextmanager
def storage_access() -> Iterator[None]:
    """Turns any error into `UnreachableError`, which tells failed storage from invalid bytes."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the kind depends on the file system
        raise UnreachableError(one_line(error)) from error


class StorageFile:
    """A file whose `read` raises `UnreachableError`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        with storage_access():
            return self._file.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def read_block(block: Block) -> list[Encoded]:
    """The encoded images of a block.

    A remote block is requested several times. If its bytes can be read but are invalid, the block
    is damaged, and all of its images are unusable.

    Raises:
        ValueError: The bytes cannot be read.
    """
    reason: Exception
    for attempt in range(NUM_TRIES):
        try:
            return read_rows(block) if block.column else read_samples(block)
        except MemoryError:
            raise
        except Exception as error:  # the kind depends on the format
            reason = error
            if is_local(block.url):
                break
            if attempt + 1 < NUM_TRIES:
                time.sleep(RETRY_SECONDS * 2**attempt)
    if isinstance(reason, UnreachableError):
        raise ValueError(
            f"{block.url} cannot be reached ({reason}); progress up to the last checkpoint is "
            "saved: repeat the command when the file is back."
        ) from reason
    return [UnusableImage(f"its block cannot be read: {one_line(reason)}")] * block.num_images


def read_rows(block: Block) -> list[Encoded]:
    """The images in some row groups of a Parquet file."""
    import pyarrow.parquet as parquet

    system, path = file_system(block.url)
    with storage_access():
        file = system.open(path, "rb")
    with file, parquet.ParquetFile(StorageFile(file)) as table:
        groups = list(range(block.begin, block.end))
        cells = table.read_row_groups(groups, columns=[block.column])[block.column].to_pylist()
    if len(cells) != block.num_images:
        raise ValueError(f"expected {block.num_images} rows, got {len(cells)}")
    cells = [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]
    return [
        cell
        if isinstance(cell, bytes) and cell
        else UnusableImage("the row holds no image's bytes")
        for cell in cells
    ]


def read_samples(block: Block) -> list[Encoded]:
    """The images of some consecutive samples of a tar."""
    system, path = file_system(block.url)
    with storage_access():
        data = system.cat_file(path, start=block.begin, end=block.end)
    # Two empty records end an archive.
    file = io.BytesIO(data + bytes(1024))
    with tarfile.open(fileobj=file, mode="r:") as archive:
        images = [sample.image for sample in samples_of(archive) if sample.image is not None]
        if len(images) != block.num_images:
            raise ValueError(f"expected {block.num_images} samples, got {len(images)}")
        return [read_member(archive, member) for member in images]


def read_shard(url: str) -> Shard:
    """Lists a shard; ValueError if it cannot be read."""
    try:
        return list_parquet(url) if suffix(url) == ".parquet" else list_tar(url)
    except Exception as error:  # the kind depends on file system and format
        raise ValueError(f"{url} cannot be read as a shard: {one_line(error)}.") from error


def list_parquet(url: str) -> Shard:
    """Lists a Parquet file from its footer and its column of labels."""
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
    class_names = tuple(getattr(features[label], "names", None) or ()) if label else ()
    if class_names:
        # By name: another shard may number its classes differently.
        labels = [None if n is None or n < 0 else class_names[n] for n in labels]
    firsts = [0, *accumulate(counts)]
    blocks = [
        Block(
            url, i, i + 1, firsts[i], count, sizes[i], column,
            tuple(labels[firsts[i] : firsts[i + 1]]),
        )
        for i, count in enumerate(counts)
        if count
    ]  # fmt: skip
    return Shard(tuple(blocks), class_names)


def list_tar(url: str) -> Shard:
    """Lists a tar, from the cache if it was listed before."""
    system, path = file_system(url)
    # What the file system reports of the file: its length and time, or its etag.
    facts = sorted((name, str(value)) for name, value in system.info(path).items())
    key = blake2b(f"{url} {facts}".encode(), digest_size=16).hexdigest()
    cached = cache_folder() / "shards" / f"{key}.json"
    try:
        return from_dict(Shard, read_json(cached, LISTING, LISTING_VERSION), str(cached))
    except (ValueError, OSError, KeyError):
        shard = Shard(tuple(scan_tar(url)))
    with suppress(OSError):  # without a cache the tar is scanned again
        write_json(cached, LISTING, LISTING_VERSION, to_dict(shard))
    return shard


def scan_tar(url: str) -> Iterator[Block]:
    """The blocks of a tar, from the headers of its files."""
    system, path = file_system(url)
    with system.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        begin = end = first = count = 0
        labels: list[Label | None] = []
        for sample in samples_of(archive):
            if sample.image is None:
                continue
            if count == SAMPLES_PER_BLOCK:
                yield Block(url, begin, end, first, count, end - begin, labels=tuple(labels))
                begin, first, count, labels = sample.begin, first + count, 0, []
            count, end = count + 1, sample.end
            label = read_label(archive, sample)
            if label is not None:
                labels.append(label)
        file.seek(archive.offset)
        mark = file.read(512)
        if len(mark) < 512 or any(mark):
            raise ValueError(f"it ends after {first + count} samples without its end mark")
        if count:
            yield Block(url, begin, end, first, count, end - begin, labels=tuple(labels))


@dataclass
class Sample:
    """Consecutive files of a tar that share a name.

    Arguments:
        key: The name, up to the first dot after the folders.
        begin: First byte in the tar.
        end: One past the last byte.
        image: The first file that is an image.
        label: The file with the label.
    """

    key: str
    begin: int
    end: int
    image: tarfile.TarInfo | None = None
    label: tarfile.TarInfo | None = None


def samples_of(archive: tarfile.TarFile) -> Iterator[Sample]:
    """The samples of a tar in their order, by the convention of WebDataset."""
    sample: Sample | None = None
    for member in archive:
        archive.members = []  # type: ignore[attr-defined] # it would collect all headers
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


def read_label(archive: tarfile.TarFile, sample: Sample) -> Label | None:
    """The label in the .cls or .json file of a sample."""
    if sample.label is None:
        return None
    text = read_member(archive, sample.label).decode(errors="replace").strip()
    if sample.label.name.lower().endswith(".json"):
        content = json.loads(text)
        values = [content[name] for name in LABEL_COLUMNS if name in content]
        return values[0] if values and isinstance(values[0], int | str) else None
    return int(text) if text.lstrip("-").isdigit() else text


def read_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The content of a regular file of a tar."""
    file = archive.extractfile(member)
    assert file is not None, member.name
    return file.read()


def shard_urls(source: str) -> list[str]:
    """The shards that a path, a folder or a pattern names."""
    try:
        system, path = file_system(source)
        if has_magic(source):
            urls = [system.unstrip_protocol(match) for match in sorted(system.glob(path))]
        elif suffix(source) in SHARD_KINDS:
            urls = [source]
        else:
            urls = [system.unstrip_protocol(file) for file in sorted(system.find(path))]
    except Exception as error:  # the kind depends on the file system
        raise ValueError(f"{source} cannot be reached: {one_line(error)}.") from error
    shards = [url for url in urls if suffix(url) in SHARD_KINDS]
    if not urls and is_local(source):
        raise ValueError(missing_path(Path(source)))
    if not shards or len({suffix(url) for url in shards}) > 1:
        raise ValueError(
            f"Streaming reads .parquet files or .tar shards, one kind at a time; {source} gives "
            f"{' and '.join(sorted({suffix(url) for url in shards})) or 'neither'}."
        )
    return shards


def file_system(url: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and the path in it."""
    from fsspec.core import url_to_fs

    return url_to_fs(url)


def is_local(url: str) -> bool:
    """Whether a path lies on this machine."""
    return "://" not in url or url.startswith("file://")
