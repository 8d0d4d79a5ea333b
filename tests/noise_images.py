"""Images of noise, in memory and on disk, whose every pixel a test knows."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vqvae2.data.config import DataConfig
from vqvae2.data.images import ImageDataset


def noise(side: int = 16, seed: int = 0, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return values if channels > 1 else values[..., 0]


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


def config(source: Path | str, **changes: object) -> DataConfig:
    return DataConfig(**{"source": str(source), "size": 16, **changes})  # type: ignore[arg-type]


def everything(dataset: ImageDataset) -> torch.Tensor:
    return dataset.batch(range(len(dataset)))
