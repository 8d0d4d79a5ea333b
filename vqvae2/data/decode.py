"""Decoding: the bytes or the path of an image file become a square uint8 RGB tensor.

Every image is turned upright, laid on white where it is transparent, cropped to its central square
and resized without aliasing. An image that cannot be used raises `UnusableImage` with the reason.

Legend: `S` side of the square.
"""

import contextlib
import io
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from vqvae2.data.decoders import decode_pool
from vqvae2.imaging.convert import from_pil
from vqvae2.imaging.prepare import central_square, upright
from vqvae2.messages import one_line

if TYPE_CHECKING:
    from PIL.Image import Image


class UnusableImage(ValueError):
    """An image that is damaged or too small.

    Arguments:
        reason: Why it cannot be used.
        short_side: Its short side in pixels, if it is too small and nothing else is wrong.
    """

    def __init__(self, reason: str, *, short_side: int | None = None) -> None:
        super().__init__(reason)
        self.short_side = short_side


Source = bytes | str | Path
"""The bytes of an image file, or its path."""

Decoded = list[Tensor | UnusableImage]
"""One entry per image: (3, S, S) uint8, or why there is none."""


def decode_image(source: Source, size: int) -> Tensor:
    """The central square of an image, (3, S, S) uint8.

    Arguments:
        source: The bytes of the file, or its path.
        size: S in pixels; the short side of the image must be at least half of it.

    Raises:
        UnusableImage: The image is damaged or too small.
    """
    with _quiet_pillow():
        return _decode_square(source, size)


def decode_images(sources: Sequence[Source | None], size: int) -> Decoded:
    """Decodes many images in the threads of `decode_pool`; None is a missing image."""

    def decode(source: Source | None) -> Tensor | UnusableImage:
        if source is None:
            return UnusableImage("the row holds no image")
        try:
            return _decode_square(source, size)
        except UnusableImage as error:
            return error

    with _quiet_pillow():
        return decode_pool().map(decode, sources)


def _decode_square(source: Source, size: int) -> Tensor:
    return from_pil(central_square(decode_upright(source, size), size))


def decode_upright(source: Source, size: int) -> "Image":
    """The image upright, as RGB; a JPEG may be decoded smaller, at 3 times `size` or more."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            short = min(image.size)
            if 2 * short < size:
                reason = f"its short side of {short} pixels is below half of {size}"
                raise UnusableImage(reason, short_side=short)
            image.draft(image.mode, (3 * size, 3 * size))
            image.load()
            return upright(image)
    except UnusableImage:
        raise
    # Pillow raises a dozen kinds of error for damaged files, from OSError to struct.error.
    except Exception as error:
        raise UnusableImage(one_line(error)) from error


class _Quiet:
    """Silences warnings while any thread is decoding; the filters of a process are global."""

    def __init__(self) -> None:
        self.lock, self.num_users = threading.Lock(), 0
        self.filters = contextlib.ExitStack()

    def enter(self) -> None:
        """Saves the filters, by the first user."""
        with self.lock:
            if not self.num_users:
                self.filters.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            self.num_users += 1

    def leave(self) -> None:
        """Restores the filters, by the last user."""
        with self.lock:
            self.num_users -= 1
            if not self.num_users:
                self.filters.close()


_quiet = _Quiet()


def _forget_users() -> None:
    global _quiet
    _quiet = _Quiet()


if hasattr(os, "register_at_fork"):  # not on Windows
    # The threads that held the lock or silenced warnings do not survive a fork.
    os.register_at_fork(after_in_child=_forget_users)


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings about damage that it can read around.

    Where warnings are errors, they would make readable images unusable.
    """
    quiet = _quiet
    quiet.enter()
    try:
        yield
    finally:
        quiet.leave()
