"""Code data sets: the codes and the label of every image, in memory or in Parquet shards.

Shards are ordinary Parquet files. Their columns are `level_0`, `level_1`, ... (coarsest first) and
`label` (int64). Each row of a level holds one image's codes in raster order: uint16 if the level
has at most 65,536 codes, else uint32. The metadata key `vqvae2` holds the format, its version and
a `CodesInfo`, as JSON.

Legend: `B` batch, `N` images, `H W` grid, `K` codes.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae2.code_grid import CodeGrid
from vqvae2.configuration import from_dict, to_dict
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import BlockShuffle, Order, Shuffle
from vqvae2.files import write_bytes
from vqvae2.messages import one_line

if TYPE_CHECKING:
    import pyarrow

FORMAT, VERSION = "vqvae2-codes", 2

HELD_BYTES = 2 << 30
"""Bytes of codes that one process holds in memory; a larger split is read shard by shard."""

CodeArray: TypeAlias = "NDArray[np.uint16] | NDArray[np.uint32]"


@dataclass(frozen=True, kw_only=True)
class CodesInfo:
    """Where the codes of a split come from, and their shape; every shard holds a copy.

    Arguments:
        autoencoder: Fingerprint of the autoencoder.
        dataset: Fingerprint of the images.
        grids: One per level, coarsest first.
        num_images: Number of images of the split, in all shards together.
    """

    autoencoder: str
    dataset: str
    grids: tuple[CodeGrid, ...]
    num_images: int


@final
@dataclass(frozen=True)
class CodesInMemory:
    """The codes of a split, or of one shard, in memory.

    Arguments:
        info: The info of the split.
        levels: Codes (N, H, W) per level, coarsest first.
        labels: (N,) int64.
    """

    info: CodesInfo
    levels: Sequence[CodeArray]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> Order:
        """One permutation of all images per epoch."""
        return Shuffle(len(self))

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Codes (B, H, W) int64 per level, and labels (B,)."""
        rows = indices.numpy()
        codes = [torch.from_numpy(level[rows].astype(np.int64)) for level in self.levels]
        return codes, self.labels[indices]


@final
class ShardedCodes:
    """The codes of a split, of which a limited number of shards is in memory.

    Arguments:
        info: The info of the split.
        paths: The shards, in the order of their images.
        grids: The levels to read, coarsest first.

    Attributes:
        order: Shards in random order; images are shuffled within windows of consecutive shards.
            Twice as many shards as a window has fit into `HELD_BYTES`.
    """

    def __init__(self, info: CodesInfo, paths: Sequence[Path], grids: Sequence[CodeGrid]) -> None:
        self.info, self.paths, self.grids = info, paths, grids
        counts = tuple(read_footer(path)[1] for path in paths)
        window = max(1, HELD_BYTES // (2 * max(counts) * bytes_per_image(grids)))
        self.order: Order = BlockShuffle(counts, window)
        self._firsts = torch.tensor([0, *accumulate(counts)])
        self._read = lru_cache(2 * window)(lambda shard: read_shard(self.paths[shard], grids))

    def __len__(self) -> int:
        return self.info.num_images

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """Codes (B, H, W) int64 per level, and labels (B,)."""
        codes = [indices.new_empty(len(indices), *grid.shape) for grid in self.grids]
        labels = torch.empty_like(indices)
        shards = torch.searchsorted(self._firsts, indices, right=True) - 1
        for shard in shards.unique().tolist():
            inside = shards == shard
            parts, labels[inside] = self._read(shard).batch(indices[inside] - self._firsts[shard])
            for level, part in zip(codes, parts, strict=True):
                level[inside] = part
        return codes, labels


@final
@dataclass(frozen=True)
class PixelCodes:
    """Images as their own codes of one level, for a prior on pixels."""

    dataset: ImageDataset

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def order(self) -> Order:
        """The order of the images within an epoch."""
        return self.dataset.order

    def batch(self, indices: Tensor) -> tuple[list[Tensor], Tensor]:
        """One level, the intensities (B, H, W, 3) int64, and labels (B,)."""
        images = self.dataset.batch(indices).movedim(1, -1)
        return [images.long()], self.dataset.labels[indices]


CodeDataset = CodesInMemory | ShardedCodes | PixelCodes
"""The examples of a prior: values (B, H, W, ...) per level, and labels."""


def open_codes(
    folder: Path, split: str, autoencoder: str, num_levels: int | None = None
) -> CodesInMemory | ShardedCodes:
    """The codes of a split: in memory, or shard by shard where they exceed `HELD_BYTES`.

    Arguments and errors are those of `read_codes`.
    """
    paths, info = complete_shards(folder, split, autoencoder)
    grids = info.grids[:num_levels]
    if bytes_per_image(grids) * info.num_images > HELD_BYTES:
        return ShardedCodes(info, paths, grids)
    return read_codes(folder, split, autoencoder, num_levels)


def read_codes(
    folder: Path, split: str, autoencoder: str, num_levels: int | None = None
) -> CodesInMemory:
    """Reads all shards of a split into memory.

    Arguments:
        folder: The folder of the shards.
        split: "train" or "validation".
        autoencoder: Expected fingerprint of the autoencoder.
        num_levels: Number of levels to read, coarsest first; None reads all.

    Raises:
        ValueError: A shard is missing, damaged or of another autoencoder.
    """
    paths, info = complete_shards(folder, split, autoencoder)
    grids = info.grids[:num_levels]
    parts = [read_shard(path, grids) for path in paths]
    levels = [np.concatenate([part.levels[i] for part in parts]) for i in range(len(grids))]
    return CodesInMemory(info, levels, torch.cat([part.labels for part in parts]))


def complete_shards(folder: Path, split: str, autoencoder: str) -> tuple[list[Path], CodesInfo]:
    """The shards of a split in order, and their common info; errors as of `read_codes`."""
    paths = sorted(folder.glob(f"{split}-*.parquet"))
    if not paths:
        raise ValueError(f"{folder} has no codes of the split {split!r}; extract them first.")
    infos, counts = zip(*map(read_footer, paths), strict=True)
    if infos[0].autoencoder != autoencoder:
        raise ValueError(
            f"The codes in {folder} were made by autoencoder {infos[0].autoencoder}, this one is "
            f"{autoencoder}; remove the folder and extract them again."
        )
    count = sum(counts)
    if any(info != infos[0] for info in infos) or count != infos[0].num_images:
        raise ValueError(
            f"The codes in {folder} are incomplete: {count} of {infos[0].num_images} images "
            f"of split {split!r}; repeat the extraction."
        )
    return paths, infos[0]


def code_type(grid: CodeGrid) -> type[np.uint16] | type[np.uint32]:
    """The smallest integer type of a shard that holds every code of a level."""
    return np.uint16 if grid.num_codes <= 1 << 16 else np.uint32


def bytes_per_image(grids: Sequence[CodeGrid]) -> int:
    """Memory that the codes of one image take."""
    return sum(grid.num_positions * np.dtype(code_type(grid)).itemsize for grid in grids)


def write_shard(
    path: Path, info: CodesInfo, levels: Sequence[NDArray[np.int64]], labels: NDArray[np.int64]
) -> None:
    """Writes one shard atomically.

    Arguments:
        path: The file to write.
        info: The info of the split.
        levels: Codes (N, H, W) per level, coarsest first.
        labels: (N,).
    """
    import pyarrow
    import pyarrow.parquet as parquet

    columns = {}
    for level, (codes, grid) in enumerate(zip(levels, info.grids, strict=True)):
        flat = pyarrow.array(codes.astype(code_type(grid)).reshape(-1))
        lists = pyarrow.FixedSizeListArray.from_arrays(flat, grid.num_positions)
        columns[f"level_{level}"] = lists
    columns["label"] = pyarrow.array(labels)
    header = {"format": FORMAT, "version": VERSION, **to_dict(info)}
    table = pyarrow.table(columns).replace_schema_metadata({"vqvae2": json.dumps(header)})
    buffer = io.BytesIO()
    parquet.write_table(table, buffer, write_page_checksum=True)
    write_bytes(path, buffer.getvalue())


def read_shard(path: Path, grids: Sequence[CodeGrid]) -> CodesInMemory:
    """The coarsest levels of one shard, as many as `grids` has; ValueError if it is damaged."""
    import pyarrow
    import pyarrow.parquet as parquet

    info = read_info(path)
    names = [f"level_{level}" for level in range(len(grids))]
    try:
        table = parquet.read_table(
            path, columns=[*names, "label"], page_checksum_verification=True
        )
        levels = [_level(table, name, grid) for name, grid in zip(names, grids, strict=True)]
        return CodesInMemory(info, levels, torch.from_numpy(table["label"].to_numpy().copy()))
    # Columns of another type do not raise Arrow's errors.
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
        reason = one_line(error)[:100]
        message = f"{path} is damaged ({reason}); repeat `vqvae2 train` to extract it again."
        raise ValueError(message) from None


def _level(table: "pyarrow.Table", name: str, grid: CodeGrid) -> CodeArray:
    """The codes (N, H, W) of one column."""
    codes: CodeArray = table[name].combine_chunks().flatten().to_numpy()
    if codes.dtype != code_type(grid):
        raise ValueError(f"{name} must be {np.dtype(code_type(grid))}, got {codes.dtype}")
    if codes.size and codes.max() >= grid.num_codes:
        raise ValueError(f"a code of {name} is not below {grid.num_codes}")
    return codes.reshape(-1, *grid.shape)


def read_info(path: Path) -> CodesInfo:
    """The info of one shard; ValueError if the file is not a shard of this version."""
    return read_footer(path)[0]


def read_footer(path: Path) -> tuple[CodesInfo, int]:
    """The info and the number of images of one shard; errors as of `read_info`."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        footer = parquet.read_metadata(path)
        header = json.loads((footer.metadata or {})[b"vqvae2"])
        name, version = header.pop("format"), header.pop("version")
    except (pyarrow.ArrowException, KeyError, ValueError, OSError, AttributeError) as error:
        reason = one_line(error)[:100]
        raise ValueError(f"{path} is not a shard of codes ({reason}); remove it.") from None
    if (name, version) != (FORMAT, VERSION):
        raise ValueError(
            f"{path} must be {FORMAT} version {VERSION}, got {name} version {version}; remove "
            f"{path.parent} and repeat `vqvae2 train` to extract the codes again."
        )
    return from_dict(CodesInfo, header, str(path)), footer.num_rows
