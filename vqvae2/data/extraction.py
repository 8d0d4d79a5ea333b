"""Extraction: encodes the images of a split into shards of codes.

Shards are complete or absent, so that a stopped extraction continues with the first missing one,
and several processes can each make some of them. Decoding, encoding and writing overlap.

On a CPU each thread decodes and encodes batches of its own: threads that share the layers of one
batch would wait for each other after every layer. On a GPU, or where fewer threads may compute
than decode, one thread has images decoded ahead.

Legend: `B` batch, `N` images.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.augmentation import AugmentedImages
from vqvae2.data.codes import CodesInfo, read_info, read_shard, write_shard
from vqvae2.data.decoders import decode_pool
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import inference_batch_size
from vqvae2.precision import exactly
from vqvae2.transfers import arrivals, pin, to_device
from vqvae2.weights import code_fingerprint

T = TypeVar("T")
R = TypeVar("R")

CPU_BATCH = 16
"""Images that a thread of a CPU encodes at a time, at most."""

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
    write: Callable[..., object] = write_shard,
) -> Iterator[int]:
    """Writes one shard, unless it is there and complete.

    Arguments:
        autoencoder: Encodes the images.
        dataset: The images of the split.
        info: What `describe_codes` returns for both.
        path: The file of the shard.
        number: Index of the shard in the split.
        write: Writes the shard; takes the arguments of `write_shard`.

    Yields:
        Number of the shard's images that are encoded so far; finally all of them.
    """
    indices = torch.tensor(shard_range(number, len(dataset)))
    if not is_complete(path, info):
        batches = []
        for codes in encoded_batches(autoencoder, dataset, indices):
            batches.append(codes)
            yield sum(len(codes[0]) for codes in batches)
        levels = [torch.cat(maps).numpy() for maps in zip(*batches, strict=True)]
        write(path, info, levels, dataset.labels[indices].numpy())
    yield len(indices)


def encoded_batches(
    autoencoder: VQVAE, dataset: ImageDataset | AugmentedImages, indices: Tensor
) -> Iterator[list[Tensor]]:
    """The codes of images of indices (N,), in batches (B, H, W) per level, on the CPU."""
    device, size = next(autoencoder.parameters()).device, inference_batch_size(dataset.size)

    @torch.no_grad()
    def encode(pixels: Tensor) -> list[Tensor]:
        # Not channels last, which would change a code in some hundred thousand.
        with exactly(device):
            return autoencoder.encode(to_device(pixels, device).float() / 255)

    def prepare(part: Tensor) -> Tensor:
        pixels = dataset.batch(part)
        return pin(pixels) if device.type == "cuda" else pixels

    threads = torch.get_num_threads()
    # All threads together hold the activations of `size` images.
    share = max(1, min(CPU_BATCH, size // threads))
    parts = indices.split(share if device.type == "cpu" else size)
    if device.type == "cpu" and threads >= decode_pool().size:
        with encoders(threads) as pool:
            yield from in_order(lambda part: encode(dataset.batch(part)), parts, pool, threads)
    else:
        with ThreadPoolExecutor(1, "decode ahead") as pool:
            yield from arrivals(map(encode, in_order(prepare, parts, pool, 1)))


@contextmanager
def encoders(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that decode and encode without further threads.

    Arguments:
        count: Their number.
    """

    def start() -> None:
        decode_pool().decode_here()
        torch.get_num_threads()  # which would set the number later
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(count, "encode", start) as pool:
            yield pool
    finally:
        torch.set_num_threads(count)  # the matrix library has one number for all threads


def in_order(
    function: Callable[[T], R], items: Iterable[T], pool: ThreadPoolExecutor, num_threads: int
) -> Iterator[R]:
    """The results of a function in the order of the items, computed ahead by a pool.

    An exception cancels what has not begun.

    Arguments:
        num_threads: Threads of the pool; twice as many results are computed ahead at most.
    """
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 2 * num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


class ShardWriter:
    """Writes shards in a thread, one at a time; an error is raised by the next call.

    At the end of its context everything is written.
    """

    def __init__(self) -> None:
        self._thread, self._pending = ThreadPoolExecutor(1, "write"), Future[None]()
        self._pending.set_result(None)

    def write(
        self,
        path: Path,
        info: CodesInfo,
        levels: Sequence[NDArray[np.int64]],
        labels: NDArray[np.int64],
    ) -> None:
        """`write_shard`, after the shard before it."""
        self._pending.result()
        self._pending = self._thread.submit(write_shard, path, info, levels, labels)

    def __enter__(self) -> Self:
        """The writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Waits for the last shard."""
        self._thread.shutdown()
        self._pending.result()


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
