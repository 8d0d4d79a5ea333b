"""Labelled images in a temporary file, for sets that do not fit into memory.

The file has no name (on Windows it is deleted when it is closed), so nothing remains of it, even
of a process that is killed. Images are read, not mapped: mapped pages would count as memory.

Legend: `B` batch, `N` images, `S` image side.
"""

import errno
import os
import tempfile
import weakref
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from vqvae2.data.order import Shuffle
from vqvae2.messages import one_line


@final
class TemporaryImages:
    """N labelled images (3, S, S) uint8 on disk, to be written once and read in any order.

    The file is closed when the object is freed.

    Arguments:
        folder: Where the file is made.
        labels: (N,) int64.
        size: S.

    Raises:
        ValueError: The folder has no space for the images, or cannot be written.
    """

    def __init__(self, folder: Path, labels: Tensor, size: int) -> None:
        self.labels, self.size = labels, size
        self._folder, self._bytes_per_image = folder, 3 * size**2
        try:
            self._file = tempfile.TemporaryFile(buffering=0, dir=folder)
            weakref.finalize(self, self._file.close)
            self._allocate()
        except OSError as error:
            raise self._no_space(error) from None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def order(self) -> Shuffle:
        """All of them in one random order."""
        return Shuffle(len(self))

    def write(self, indices: Tensor, images: Tensor) -> None:
        """Stores images (B, 3, S, S) uint8 at (B,) indices."""
        assert images.dtype == torch.uint8, images.dtype
        try:
            for index, image in zip(indices.tolist(), images.contiguous().numpy(), strict=True):
                self._file.seek(index * self._bytes_per_image)
                if self._file.write(image) != self._bytes_per_image:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._no_space(error) from None

    def batch(self, indices: Tensor) -> Tensor:
        """The images of (B,) indices, (B, 3, S, S) uint8."""
        images = torch.empty(len(indices), 3, self.size, self.size, dtype=torch.uint8)
        for index, image in zip(indices.tolist(), images.numpy(), strict=True):
            self._file.seek(index * self._bytes_per_image)
            num_bytes = self._file.readinto(image)
            assert num_bytes == self._bytes_per_image, "every image is written before it is read"
        return images

    def _allocate(self) -> None:
        """Reserves the space, where the system can, so that hours of sampling do not end here."""
        if not hasattr(os, "posix_fallocate") or not len(self):
            return
        try:
            os.posix_fallocate(self._file.fileno(), 0, len(self) * self._bytes_per_image)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise

    def _no_space(self, error: OSError) -> ValueError:
        mib = len(self) * self._bytes_per_image / 2**20
        return ValueError(
            f"{self._folder} has no space for a temporary file of {mib:,.0f} MiB with "
            f"{len(self):,} images ({one_line(error)}); free some, or measure fewer images."
        )
