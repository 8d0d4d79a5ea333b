"""Images of random pixels, in memory and on disk, of which a test knows every pixel."""

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vqvae2.data.config import DataConfig
from vqvae2.data.images import ImageDataset


def noise(side: int = 16, seed: int = 0, channels: int = 3) -> np.ndarray:
    """Random pixels, (side, side, channels) uint8, or (side, side) with one channel."""
    values = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return values if channels > 1 else values[..., 0]


def noise_tensor(seeds: Iterable[int], side: int = 16) -> torch.Tensor:
    """The images of some seeds, (N, 3, side, side) uint8."""
    return torch.stack([torch.from_numpy(noise(side, s)).permute(2, 0, 1) for s in seeds])


def save(path: Path, seed: int = 0, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(side, seed)).save(path)
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def class_folder(root: Path, count: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        for number in range(count):
            save(root / name / f"{number:03d}.png", seed=100 * label + number)
    return root


def write_parquet(
    path: Path,
    seeds: Iterable[int],
    labels: Sequence[object] | None = None,
    feature: object = None,
    rows_per_group: int = 1000,
    side: int = 16,
) -> Path:
    """A Parquet file of images and labels, integers by default."""
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    files = [encoded(Image.fromarray(noise(side, seed))) for seed in seeds]
    columns: dict[str, object] = {"image": [{"bytes": file, "path": None} for file in files]}
    features = {"image": ImageFeature()}
    if labels is not None:
        columns["label"] = labels
        features["label"] = feature or Value("int64")
    path.parent.mkdir(parents=True, exist_ok=True)
    table = Dataset.from_dict(columns, features=Features(features))
    table.to_parquet(path, batch_size=rows_per_group)
    return path


def damage_block(path: Path, row_group: int) -> None:
    """Overwrites a row group of a Parquet file."""
    import pyarrow.parquet as parquet

    column = parquet.ParquetFile(path).metadata.row_group(row_group).column(0)
    with path.open("r+b") as file:
        file.seek(column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xff" * column.total_compressed_size)


def by_number(seed: int) -> dict[str, bytes]:
    return {"cls": str(seed % 3).encode()}


def write_tar(
    path: Path,
    seeds: Iterable[int],
    extra: Callable[[int], dict[str, bytes]] = by_number,
    prefix: str = "",
) -> Path:
    """A WebDataset tar: per sample an image, a caption and the `extra` files by their ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for seed in seeds:
            image = encoded(Image.fromarray(noise(16, seed)))
            for ending, data in {"png": image, "txt": b"a caption", **extra(seed)}.items():
                entry = tarfile.TarInfo(f"{prefix}{seed:03d}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return path


def config(source: Path | str, **changes: object) -> DataConfig:
    return DataConfig(**{"source": str(source), "size": 16, **changes})  # type: ignore[arg-type]


def everything(dataset: ImageDataset) -> torch.Tensor:
    return dataset.batch(range(len(dataset)))
