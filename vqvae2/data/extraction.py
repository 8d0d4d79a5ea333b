"""Extraction: encodes the images of a split into shards of codes.

Shards are complete or absent, so that a stopped extraction continues with the first missing one,
and several processes can each make some of them.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.augmentation import AugmentedImages
from vqvae2.data.codes import CodesInfo, read_info, read_shard, write_shard
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import inference_batch_size
from vqvae2.transfers import arrivals, to_device
from vqvae2.weights import code_fingerprint

IMAGES_PER_SHARD = 8192
"""The last shard of a split has fewer."""


def describe_codes(autoencoder: VQVAE, dataset: ImageDataset | AugmentedImages) -> CodesInfo:
    """The info of the shards that hold the codes of a data set."""
    size = dataset.size
    return CodesInfo(
        autoencoder=code_fingerprint(autoencoder),
        dataset=dataset.fingerprint(),
        grids=tuple(autoencoder.config.grids(size, size)),
        num_images=len(dataset),
    )


def extract_shard(
    autoencoder: VQVAE,
    dataset: ImageDataset | AugmentedImages,
    info: CodesInfo,
    path: Path,
    number: int,
) -> Iterator[int]:
    """Writes one shard, unless it is there and complete.

    Arguments:
        autoencoder: Encodes the images.
        dataset: The images of the split.
        info: What `describe_codes` returns for both.
        path: The file of the shard.
        number: Index of the shard in the split.

    Yields:
        Number of the shard's images that are encoded so far; finally all of them.
    """
    indices = torch.tensor(shard_range(number, len(dataset)))
    if not is_complete(path, info):
        device, batches = next(autoencoder.parameters()).device, []
        parts = indices.split(inference_batch_size(dataset.size))
        images = (to_device(dataset.batch(part), device).float() / 255 for part in parts)
        for codes in arrivals(map(autoencoder.encode, images)):
            batches.append(codes)
            yield sum(len(codes[0]) for codes in batches)
        levels = [torch.cat(maps).numpy() for maps in zip(*batches, strict=True)]
        write_shard(path, info, levels, dataset.labels[indices].numpy())
    yield len(indices)


def is_complete(path: Path, info: CodesInfo) -> bool:
    """Whether an undamaged shard with exactly this info is there."""
    try:
        if not path.is_file() or read_info(path) != info:
            return False
        read_shard(path, info.grids)
        return True
    except ValueError:
        return False


def shard_path(folder: Path, split: str, number: int) -> Path:
    """The file of shard `number` of a split."""
    return folder / f"{split}-{number:05d}.parquet"


def shard_range(number: int, num_images: int) -> range:
    """Indices of the images in shard `number`."""
    first = number * IMAGES_PER_SHARD
    return range(first, min(first + IMAGES_PER_SHARD, num_images))


def num_shards(num_images: int) -> int:
    """Number of shards of a split."""
    return -(-num_images // IMAGES_PER_SHARD)


def remove_other_shards(folder: Path, split: str, num_images: int) -> None:
    """Removes the shards beyond `num_images`, left by an extraction of more images."""
    expected = {shard_path(folder, split, number) for number in range(num_shards(num_images))}
    for path in set(folder.glob(f"{split}-*.parquet")) - expected:
        path.unlink()
