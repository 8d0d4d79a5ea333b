"""Code data sets: every image's codes and label, as Parquet shards.

A shard is readable by anything that reads Parquet. Its columns are `level_0`, `level_1`, ...
(coarsest first; each row the uint16 codes of a image in raster order) and `label` (int64). The
file's metadata key `vqvae2` holds JSON: format, version, the fingerprint of the autoencoder that
made the codes, the fingerprint of the images, the number of codes and the grids. Shards are
written whole or not at all, so an extraction that was stopped goes on with the first one missing.

Legend: `N` images, `H W` grid, `K` codes.
"""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.configuration import from_dict, to_dict
from vqvae2.data.augmentation import Augmentation
from vqvae2.data.decode import one_line
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import BlockShuffle, Order, Shuffle, inference_batch_size
from vqvae2.files import write_bytes
from vqvae2.weights import fingerprint

FORMAT, VERSION = "vqvae2-codes", 1
IMAGES_A_SHARD = 8192

HELD_BYTES = 2 << 30
"""Codes beyond this are read by shards, so many bytes of them; each process holds its own."""


class CodeDataset(Protocol):
    """What a prior learns from: `CodeData`, `ShardedCodes`, `vqvae2.data.pixels.PixelData`."""

    def __len__(self) -> int:
        """N."""

    @property
    def order(self) -> Order:
        """The order in which an epoch takes them."""

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Values (B, H, W, ...) int64 a level, coarsest first, and labels (B,)."""


@dataclass(frozen=True, kw_only=True)
class CodesInfo:
    """What a shard says of itself.

    Arguments:
        autoencoder: fingerprint of the autoencoder.
        images: fingerprint of the images.
        num_codes: K.
        grids: (H, W) a level, coarsest first.
        num_images: of the whole split.
    """

    autoencoder: str
    dataset: str
    num_codes: int
    grids: tuple[tuple[int, int], ...]
    num_images: int


@dataclass(frozen=True)
class CodesInMemory:
    """The codes of one split in memory.

    Arguments:
        info: where they come from.
        levels: (N, H, W) uint16 a level, coarsest first.
        labels: (N,) int64.
    """

    info: CodesInfo
    levels: list[np.ndarray[Any, np.dtype[np.uint16]]]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> Order:
        """The order in which an epoch takes them."""
        return Shuffle(len(self))

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Codes (B, H, W) int64 a level, and labels (B,)."""
        rows = indices.numpy()
        codes = [torch.from_numpy(level[rows].astype(np.int64)) for level in self.levels]
        return codes, self.labels[indices]


def describe(autoencoder: VQVAE, dataset: ImageDataset | Augmentation) -> CodesInfo:
    """What the shards of images will say of themselves."""
    return CodesInfo(
        autoencoder=fingerprint(autoencoder),
        dataset=dataset.fingerprint(),
        num_codes=autoencoder.config.num_codes,
        grids=tuple(autoencoder.config.grids(dataset.size, dataset.size)),
        num_images=len(dataset),
    )


@torch.no_grad()
def extract_shard(
    autoencoder: VQVAE,
    dataset: ImageDataset | Augmentation,
    info: CodesInfo,
    path: Path,
    number: int,
) -> Iterator[int]:
    """Encodes the images of one shard into `path`; yields how many of them are done.

    A shard that is there already and comes from the same autoencoder and images is kept.
    """
    device, batch = next(autoencoder.parameters()).device, inference_batch_size(dataset.size)

    def encode(indices: range) -> list[Tensor]:
        images = dataset.batch(list(indices)).to(device).float() / 255
        return [codes.cpu() for codes in autoencoder.encode(images)]

    own = shard_range(number, len(dataset))
    if not is_shard_of(path, info):
        parts = []
        for begin in own[::batch]:
            parts.append(encode(range(begin, min(begin + batch, own.stop))))
            yield min(begin + batch, own.stop) - own.start
        levels = [torch.cat(maps).numpy() for maps in zip(*parts, strict=True)]
        write_shard(path, info, levels, dataset.labels[own.start : own.stop].numpy())
    yield len(own)


def shard_range(number: int, num_images: int) -> range:
    """Which images of a split a shard holds."""
    first = number * IMAGES_A_SHARD
    return range(first, min(first + IMAGES_A_SHARD, num_images))


def shards_of(num_images: int) -> int:
    """How many shards a split has."""
    return -(-num_images // IMAGES_A_SHARD)


def remove_other_shards(folder: Path, split: str, num_images: int) -> None:
    """Removes what an earlier extraction of more images left behind."""
    own = {shard_path(folder, split, number) for number in range(shards_of(num_images))}
    for path in folder.glob(f"{split}-*.parquet"):
        if path not in own:
            path.unlink()


def open_codes(
    folder: Path, split: str, autoencoder: str, num_levels: int | None = None
) -> "CodesInMemory | ShardedCodes":
    """The codes of a split, in memory or, where they take more than `HELD_BYTES`, by shards.

    Arguments and errors are those of `read_codes`.
    """
    paths, info = whole_shards(folder, split, autoencoder)
    grids = info.grids[:num_levels]
    numbers = sum(height * width for height, width in grids)
    if 2 * numbers * info.num_images > HELD_BYTES:
        return ShardedCodes(info, paths, grids)
    return read_codes(folder, split, autoencoder, num_levels)


def read_codes(
    folder: Path, split: str, autoencoder: str, num_levels: int | None = None
) -> CodesInMemory:
    """All shards of a split; ValueError if they are of another autoencoder, cut or incomplete.

    Arguments:
        autoencoder: the fingerprint that they must have.
        num_levels: read the coarsest so many levels; None reads all.
    """
    paths, info = whole_shards(folder, split, autoencoder)
    grids = info.grids[:num_levels]
    parts = [read_shard(path, grids) for path in paths]
    levels = [np.concatenate([part.levels[i] for part in parts]) for i in range(len(grids))]
    return CodesInMemory(info, levels, torch.cat([part.labels for part in parts]))


def whole_shards(folder: Path, split: str, autoencoder: str) -> tuple[list[Path], CodesInfo]:
    """All shards of a split in their order, and what they say of themselves."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise ValueError(f"{folder} holds no codes of the split {split!r}; extract them first.")
    infos = [read_info(path) for path in paths]
    if infos[0].autoencoder != autoencoder:
        raise ValueError(
            f"The codes in {folder} were made by autoencoder {infos[0].autoencoder}, this one is "
            f"{autoencoder}; remove the folder and extract them again."
        )
    count = sum(rows_of(path) for path in paths)
    if any(info != infos[0] for info in infos) or count != infos[0].num_images:
        raise ValueError(
            f"The codes in {folder} are incomplete: {count} of {infos[0].num_images} images "
            f"of split {split!r}; repeat the extraction."
        )
    return paths, infos[0]


@final
class ShardedCodes:
    """The codes of one split, of which some shards are in memory.

    Arguments:
        info: where they come from.
        paths: of the shards, in their order.
        grids: (H, W) of the levels that are read.

    Attributes:
        order: of any epoch: shards at random, and their images shuffled among some, of which
            twice as many are held.
    """

    def __init__(
        self, info: CodesInfo, paths: Sequence[Path], grids: Sequence[tuple[int, int]]
    ) -> None:
        self.info, self.paths, self.grids = info, paths, grids
        counts = tuple(rows_of(path) for path in paths)
        largest = 2 * max(counts) * sum(height * width for height, width in grids)
        window = max(1, HELD_BYTES // (2 * largest))
        self.order: Order = BlockShuffle(counts, window)
        self._firsts = torch.tensor([0, *accumulate(counts)])
        self._read = lru_cache(2 * window)(self._read_shard)

    def __len__(self) -> int:
        return self.info.num_images

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Codes (B, H, W) int64 a level, and labels (B,)."""
        codes = [indices.new_empty(len(indices), *grid) for grid in self.grids]
        labels = torch.empty_like(indices)
        shards = torch.searchsorted(self._firsts, indices, right=True) - 1
        for shard in shards.unique().tolist():
            own = shards == shard
            found, classes = self._read(shard).batch(indices[own] - self._firsts[shard])
            labels[own] = classes
            for level, maps in zip(codes, found, strict=True):
                level[own] = maps
        return codes, labels

    def _read_shard(self, shard: int) -> CodesInMemory:
        return read_shard(self.paths[shard], self.grids)


def rows_of(path: Path) -> int:
    """How many images a shard says that it holds."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        return int(parquet.read_metadata(path).num_rows)
    except (arrow.ArrowException, OSError) as error:
        reason = one_line(error)[:100]
        raise ValueError(f"{path} is not a shard of codes ({reason}); remove it.") from None


def read_shard(path: Path, grids: Sequence[tuple[int, int]]) -> CodesInMemory:
    """One shard's coarsest levels; ValueError if its checksums do not fit."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    names = [f"level_{level}" for level in range(len(grids))]
    try:
        table = parquet.read_table(
            path, columns=[*names, "label"], page_checksum_verification=True
        )
        info = read_info(path)
        levels = [column(table, n).reshape(-1, *g) for n, g in zip(names, grids, strict=True)]
        if any(level.size and level.max() >= info.num_codes for level in levels):
            raise ValueError(f"a code is not below {info.num_codes}")
        return CodesInMemory(info, levels, torch.from_numpy(table["label"].to_numpy().copy()))
    # What Arrow says, and what comes of columns of other types.
    except (arrow.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        reason = one_line(error)[:100]
        message = f"{path} is damaged ({reason}); repeat `vqvae2 train` to extract it again."
        raise ValueError(message) from None


def write_shard(
    path: Path,
    info: CodesInfo,
    levels: Sequence[np.ndarray[Any, Any]],
    labels: np.ndarray[Any, Any],
) -> None:
    """Writes one shard of codes (N, H, W) a level."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    columns = {}
    for level, codes in enumerate(levels):
        flat = arrow.array(codes.astype(np.uint16).reshape(-1))
        size = codes.shape[1] * codes.shape[2]
        columns[f"level_{level}"] = arrow.FixedSizeListArray.from_arrays(flat, size)
    columns["label"] = arrow.array(labels)
    header = {"format": FORMAT, "version": VERSION, **to_dict(info)}
    table = arrow.table(columns).replace_schema_metadata({"vqvae2": json.dumps(header)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, write_page_checksum=True)
    write_bytes(path, buffer.getvalue())


def read_info(path: Path) -> CodesInfo:
    """What a shard says of itself; ValueError if it is not one or damaged."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        header = json.loads((parquet.read_schema(path).metadata or {})[b"vqvae2"])
        found = header.pop("format"), header.pop("version")
    except (arrow.ArrowException, KeyError, ValueError, OSError, AttributeError) as error:
        reason = one_line(error)[:100]
        raise ValueError(f"{path} is not a shard of codes ({reason}); remove it.") from None
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path} must hold {FORMAT} version {VERSION}; extract the codes again.")
    return from_dict(CodesInfo, header, str(path))


def is_shard_of(path: Path, info: CodesInfo) -> bool:
    """Whether a whole shard made from exactly this autoencoder and these images is there."""
    try:
        if not path.is_file() or read_info(path) != info:
            return False
        read_shard(path, info.grids)
        return True
    except ValueError:
        return False


def shard_path(folder: Path, split: str, number: int) -> Path:
    """Where a shard lies."""
    return folder / f"{split}-{number:05d}.parquet"


def column(table: Any, name: str) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """A column of fixed-size lists as one flat array."""
    values: np.ndarray[Any, np.dtype[np.uint16]]
    values = table[name].combine_chunks().flatten().to_numpy()
    return values
