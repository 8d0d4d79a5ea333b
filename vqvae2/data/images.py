"""Pictures from a folder, a hub data set, Parquet files, WebDataset shards or the built-in set.

Whatever the source, `open_pictures` gives two splits of square uint8 RGB pictures with labels:
one to train on, one held out. Every picture goes through one decoder: turned upright, laid on
white where transparent, cropped to its central square and resized without aliasing.

A picture that cannot be read is skipped, named and counted; it never ends a run.

Every source is read through the `datasets` library. A folder of pictures is listed here and given
to it as paths, so that nothing is copied; Parquet files, shards and hub data sets are converted
once into that library's own cache.
"""

import contextlib
import difflib
import glob
import hashlib
import io
import json
import math
import os
import re
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from torch import Tensor

from vqvae2.data import synthetic

if TYPE_CHECKING:
    from PIL.Image import Image

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, of how many

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = (
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testing",
)  # the first found is used
IMAGE_COLUMNS = ("image", "img", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")
DECODED_AT_ONCE = 512  # pictures between two reports of progress
HUB_TIMEOUT = 10.0  # seconds until a hub that does not answer counts as out of reach


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from and how they are made.

    Arguments:
        source: A folder, Parquet file(s), WebDataset .tar shard(s) (a file, a folder of them or a
            glob), the name of a hub data set ("owner/name" or "owner/name:config"), or
            "synthetic" for the built-in set.
        size: Side of the square pictures, pixels.
        held_out_fraction: Share held out when the source brings no validation or test split.
        synthetic_pictures: Size of the built-in set, both splits together.
        seed: Of the held-out split and of the built-in set.
        memory_gib: Decoded pictures are kept in memory up to this size, else decoded on access.
    """

    source: str = "synthetic"
    size: int = 64
    held_out_fraction: float = 0.1
    synthetic_pictures: int = 12_000
    seed: int = 0
    memory_gib: float = 4.0


class UnreadablePicture(ValueError):
    """A picture that cannot be used, and why.

    Arguments:
        reason: What is wrong with it.
        short_side: Its short side in pixels, if being too small is all that is wrong.
    """

    def __init__(self, reason: str, *, short_side: int | None = None) -> None:
        super().__init__(reason)
        self.short_side = short_side


Decoded = list[Tensor | UnreadablePicture]  # one entry a picture, (3, S, S) uint8


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split before it is decoded.

    Arguments:
        names: What each picture is called in messages, N of them.
        labels: With shape (N,), int64, all 0 without labels.
        class_names: Empty without labels.
        decode: Decodes the pictures of the given indices.
        lengths: Bytes of each picture's file where they are known, for the fingerprint.
        facts: What else tells this source from others, for the fingerprint.
    """

    names: list[str]
    labels: Tensor
    class_names: tuple[str, ...]
    decode: Callable[[Sequence[int]], Decoded]
    lengths: list[int]
    facts: str

    def select(self, indices: list[int]) -> "Rows":
        """Returns the given rows, in the given order."""
        return replace(
            self,
            names=[self.names[index] for index in indices],
            labels=self.labels[torch.tensor(indices, dtype=torch.int64)],
            lengths=[self.lengths[index] for index in indices] if self.lengths else [],
            decode=lambda wanted: self.decode([indices[index] for index in wanted]),
        )

    def without_labels(self) -> "Rows":
        """Returns the same rows with their labels removed."""
        return replace(self, labels=torch.zeros_like(self.labels), class_names=())


@final
class Pictures:
    """One split: square uint8 RGB pictures with their labels.

    Pictures are decoded once, here, when `in_memory`; those that cannot be read are left out.
    Otherwise they are decoded on access, and one that cannot be read is replaced by the next
    that can, of the same class where there is one.

    Arguments:
        rows: What to decode.
        size: Side of the square pictures, pixels.
        in_memory: Decode everything now and keep it, N * 3 * S * S bytes.
        title: What to call this split in messages and progress.
        progress: Told how far decoding has come.

    Attributes:
        class_names: Empty when the source has no labels.
        labels: With shape (N,), int64, all 0 when there are no labels.
        size: Side of the square pictures, pixels.
        names: What each picture is called.
        reasons: Why each unreadable picture found so far cannot be used, by name.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        size: int,
        in_memory: bool,
        title: str = "pictures",
        progress: Progress | None = None,
    ) -> None:
        self.size = size
        self.class_names = rows.class_names
        self.reasons: dict[str, str] = {}
        self._title = title
        self._bad: dict[int, UnreadablePicture] = {}
        self._pixels: Tensor | None = None
        if in_memory:
            self._pixels, kept = self._decode_all(rows, progress)
            rows = rows if len(kept) == len(rows.names) else rows.select(kept)
        self.labels = rows.labels
        self.names = rows.names
        self._rows = rows
        if not in_memory:
            self.batch([0])  # so that a source without a single readable picture is told at once

    def __len__(self) -> int:
        return len(self.names)

    @property
    def skipped(self) -> list[str]:
        """The names of the unreadable pictures found so far."""
        return list(self.reasons)

    def name(self, index: int) -> str:
        """Returns what a picture is called in messages and tables: a file name or a number."""
        return self.names[index]

    def batch(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Returns the pictures of the given indices, with shape (B, 3, S, S), uint8."""
        index = torch.as_tensor(indices, dtype=torch.int64).reshape(-1).cpu()
        if self._pixels is not None:
            return self._pixels[index]
        wanted = [number % len(self) for number in index.tolist()]
        pictures = torch.empty((len(wanted), 3, self.size, self.size), dtype=torch.uint8)
        for place, decoded in enumerate(self._decode(wanted)):
            picture = self._replacement(wanted[place]) if decoded is None else decoded
            pictures[place] = picture
        return pictures

    def fingerprint(self) -> str:
        """Returns 16 hexadecimal digits that tell this split from others, without decoding it.

        It covers the names, labels, file lengths and side of the pictures, not where they lie.
        """
        rows = self._rows
        digest = hashlib.sha256(f"vqvae2-pictures 1 {self.size} {rows.facts}\n".encode())
        digest.update(json.dumps([self.class_names, rows.names, rows.lengths]).encode())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]

    def _decode_all(self, rows: Rows, progress: Progress | None) -> tuple[Tensor, list[int]]:
        """Returns every readable picture, (M, 3, S, S), and which they are."""
        total = len(rows.names)
        pixels = torch.empty((total, 3, self.size, self.size), dtype=torch.uint8)
        kept: list[int] = []
        for start in range(0, total, DECODED_AT_ONCE):
            part = range(start, min(start + DECODED_AT_ONCE, total))
            for index, picture in zip(part, rows.decode(part), strict=True):
                if isinstance(picture, UnreadablePicture):
                    self._skip(index, rows.names[index], picture)
                else:
                    pixels[len(kept)] = picture
                    kept.append(index)
            if progress is not None:
                progress(f"reading {self._title}", part.stop, total)
        if not kept:
            raise self._nothing_readable(total)
        return pixels[: len(kept)], kept

    def _decode(self, indices: list[int]) -> list[Tensor | None]:
        """Returns the pictures, None where one is unreadable; those known to be are not tried."""
        fresh = [index for index in dict.fromkeys(indices) if index not in self._bad]
        found: dict[int, Tensor] = {}
        for index, picture in zip(fresh, self._rows.decode(fresh), strict=True):
            if isinstance(picture, UnreadablePicture):
                self._skip(index, self.names[index], picture)
            else:
                found[index] = picture
        return [found.get(index) for index in indices]

    def _replacement(self, index: int) -> Tensor:
        """Returns the next readable picture of the same class, else the next of any class."""
        others = (torch.arange(1, len(self)) + index) % len(self)
        same = self.labels[others] == self.labels[index]
        for other in torch.cat([others[same], others[~same]]).tolist():
            picture = self._decode([other])[0]
            if picture is not None:
                return picture
        raise self._nothing_readable(len(self))

    def _skip(self, index: int, name: str, error: UnreadablePicture) -> None:
        self._bad[index] = error
        self.reasons[name] = str(error)

    def _nothing_readable(self, total: int) -> ValueError:
        sides = [error.short_side for error in self._bad.values() if error.short_side is not None]
        if len(sides) == len(self._bad):
            return ValueError(
                f"All {total} {self._title} are too small for size {self.size}: the short side "
                f"must be at least {math.ceil(self.size / 2)} pixels, the largest has "
                f"{max(sides)}; use larger pictures or a size of {2 * max(sides)} or less."
            )
        name, reason = next(iter(self.reasons.items()))
        return ValueError(
            f"None of the {total} {self._title} could be read; the first, {name}: {reason}. "
            "Check that the files are complete pictures."
        )


@dataclass(frozen=True)
class PictureData:
    """The two splits of a source and the classes they share, () without labels."""

    train: Pictures
    held_out: Pictures
    class_names: tuple[str, ...]


def open_pictures(config: DataConfig, *, progress: Progress | None = None) -> PictureData:
    """Opens a source as a training and a held-out split.

    A source that brings a validation split holds that out, else its test split; from one that
    brings neither, `held_out_fraction` is chosen by a hash of the seed and each picture's name,
    so that more pictures never move the others across.

    Arguments:
        config: Where the pictures come from and how they are made.
        progress: Called with what is done, how many are done, and of how many.
    """
    _check(config)
    train, held_out = _open(config)
    if held_out is None:
        train, held_out = _hold_out(train, config.held_out_fraction, config.seed)
    if not (train.class_names and held_out.class_names):
        held_out = held_out.without_labels()
    total = len(train.names) + len(held_out.names)
    in_memory = total * 3 * config.size**2 <= config.memory_gib * 2**30

    def pictures(rows: Rows, title: str) -> Pictures:
        return Pictures(
            rows, size=config.size, in_memory=in_memory, title=title, progress=progress
        )

    return PictureData(
        train=pictures(train, "training pictures"),
        held_out=pictures(held_out, "held-out pictures"),
        class_names=train.class_names,
    )


def load_folder(path: str | Path, size: int, *, progress: Progress | None = None) -> Pictures:
    """Loads every picture in and below a folder into memory, as one split without labels."""
    files = _pictures_of(_files(Path(path)), Path(path))
    return Pictures(_folder_rows(files, (), 0, size), size=size, in_memory=True, progress=progress)


def picture_files(path: str | Path) -> list[Path]:
    """Returns the pictures in and below a folder, in the order of `load_folder`."""
    return [Path(file.path) for file in _pictures_of(_files(Path(path)), Path(path))]


def decode_picture(source: bytes | str | Path, size: int) -> Tensor:
    """Returns the central square of a picture, with shape (3, S, S), uint8.

    Arguments:
        source: The file's bytes, or its path.
        size: Side of the square, pixels; the picture's short side must be at least half of it.
    """
    with _quiet_pillow():
        return _decode_square(source, size)


def decode_full(source: bytes | str | Path) -> "Image":
    """Returns a whole picture as upright RGB at its own size.

    Arguments:
        source: The file's bytes, or its path.
    """
    with _quiet_pillow():
        return _decode_upright(source, at_least=None)


def to_uint8_rgb(image: "Image") -> Tensor:
    """Returns an RGB picture as a tensor, with shape (3, H, W), uint8."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


# The decoder


def _decode_square(source: bytes | str | Path, size: int) -> Tensor:
    from PIL.Image import Resampling

    image = _decode_upright(source, at_least=size)
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    # Whole pixels, so that a picture whose short side is `size` is cropped and nothing else.
    box = (left, top, left + short, top + short)
    if short == size:
        return to_uint8_rgb(image.crop(box))
    # Pillow widens the filter with the ratio, so that fine patterns average out.
    return to_uint8_rgb(image.resize((size, size), Resampling.LANCZOS, box=box, reducing_gap=3.0))


def _decode_upright(source: bytes | str | Path, *, at_least: int | None) -> "Image":
    """Returns the picture upright and as RGB; JPEG may come smaller, at 3 times `at_least`."""
    from PIL import Image

    broken = (
        OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, OverflowError,
        struct.error, zlib.error, Image.DecompressionBombError,
    )  # fmt: skip
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            if at_least is not None:
                _check_side(min(image.size), at_least)
                image.draft(image.mode, (3 * at_least, 3 * at_least))
            image.load()
            orientation = image.getexif().get(0x0112, 1)
            return _upright(_rgb(image), orientation)
    except UnreadablePicture:
        raise
    # Pillow's readers meet broken files with any of these.
    except broken as error:
        raise UnreadablePicture(_one_line(error)) from error


def _check_side(short: int, size: int) -> None:
    if 2 * short < size:
        raise UnreadablePicture(
            f"its short side of {short} pixels is below half of {size}", short_side=short
        )


def _upright(image: "Image", orientation: int) -> "Image":
    """Undoes the rotation that EXIF tag 274 tells; other values than 2 to 8 mean none.

    Pillow's own `exif_transpose` also rewrites the tags, which fails on pictures whose other tags
    are damaged.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _rgb(image: "Image") -> "Image":
    """Returns any mode of picture as RGB, laid on white where it is transparent."""
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image), image.mode)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")


def _eight_bits(values: np.ndarray[Any, Any], mode: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Scales grey values of more than 8 bits, (H, W), to 0..255.

    "I;16" spans 16 bits. "I" and "F" do not say what white is: it is taken to be the smallest of
    1 ("F" only), 8, 16 and 32 bits that holds the brightest value.
    """
    grey = np.nan_to_num(values.astype(np.float64))
    spans = [255.0, 65_535.0, 2.0**32 - 1]
    if mode.startswith("I;16"):
        spans = [65_535.0]
    elif mode == "F":
        spans = [1.0, *spans]
    brightest = grey.max(initial=0.0)
    white = next((span for span in spans if brightest <= span), brightest)
    scaled: np.ndarray[Any, np.dtype[np.uint8]]
    scaled = np.clip(np.rint(grey * (255.0 / white)), 0, 255).astype(np.uint8)
    return scaled


_WARNINGS = threading.Lock()


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow, which warns of damage that it can read around.

    Where warnings are errors they would make readable pictures unreadable. Filters belong to the
    process, hence the lock: two threads must not restore each other's.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return re.sub(r"<_io\.\S+ object at \w+>", "the file", text)


# Sources


def _check(config: DataConfig) -> None:
    if config.size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {config.size}.")
    if not 0 < config.held_out_fraction < 1:
        raise ValueError(
            f"held_out_fraction must lie between 0 and 1, got {config.held_out_fraction}; "
            "0.1 holds out every tenth picture."
        )
    if not config.source:
        raise ValueError("source is empty; name a folder, a hub data set or 'synthetic'.")


def _open(config: DataConfig) -> tuple[Rows, Rows | None]:
    """Returns the splits that a source brings: the training split and maybe a held-out one."""
    source = config.source
    if source == "synthetic":
        return _synthetic_rows(config), None
    path = Path(source).expanduser()
    if os.path.isdir(path):  # unlike `path.is_dir()`, never raises
        return _open_folder(path, config.size)
    if os.path.isfile(path):
        files = [_File(path=str(path), parts=(path.name,), length=path.stat().st_size)]
        return _open_shards(files, path, config.size)
    if glob.has_magic(source):
        return _open_shards(_matches(source), path, config.size)
    if _is_hub_name(source):
        return _open_hub(source, config.size)
    raise ValueError(_missing(path))


def _synthetic_rows(config: DataConfig) -> Rows:
    total, size, seed = config.synthetic_pictures, config.size, config.seed
    if total < 2:
        raise ValueError(f"synthetic_pictures must be at least 2, got {total}.")
    return Rows(
        names=[str(index) for index in range(total)],
        labels=synthetic.labels_of(range(total), seed),
        class_names=synthetic.CLASS_NAMES,
        decode=lambda indices: list(synthetic.render(indices, size, seed).images),
        lengths=[],
        facts=f"synthetic 1 seed {seed}",
    )


def _hold_out(rows: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Splits by a hash of each name, so that every picture's side depends on itself alone."""
    if len(rows.names) < 2:
        raise ValueError(
            f"At least 2 pictures are needed, one to train on and one held out, got "
            f"{len(rows.names)} ({', '.join(rows.names)}); add pictures."
        )
    places = [_place(name, seed) for name in rows.names]
    ranks = sorted(range(len(places)), key=places.__getitem__)
    # However few the pictures and whatever the fraction, neither side stays empty.
    held = {index for index in ranks if places[index] < fraction} | {ranks[0]}
    held -= {ranks[-1]}
    train = [index for index in range(len(places)) if index not in held]
    return rows.select(train), rows.select(sorted(held))


def _place(name: str, seed: int) -> float:
    """Returns a number in [0, 1) that depends on (seed, name) alone."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogateescape"), digest_size=8)
    return int.from_bytes(digest.digest()) / 2**64


def _missing(path: Path) -> str:
    """Returns the message for a path that is not there, with a near name where there is one."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f"There is no {path.absolute()}: {parent.absolute()} is no folder; check the path."
    siblings = os.listdir(parent) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {parent / near[0]}?" if near else "check the path."
    return f"There is no folder or file {path.absolute()}; {hint}"


# Folders of pictures


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A file, its path below the folder that was asked for, and its length in bytes."""

    path: str
    parts: tuple[str, ...]
    length: int

    @property
    def suffix(self) -> str:
        return os.path.splitext(self.parts[-1])[1].lower()


def _files(folder: Path) -> list[_File]:
    """Returns every file in and below a folder, sorted by name, folder by folder."""
    if not folder.is_dir():
        wanted = f"Expected a folder of pictures, {folder} is a file; give the folder it lies in."
        raise ValueError(wanted if folder.exists() else _missing(folder))
    return list(_walk(str(folder), (), frozenset()))


def _walk(folder: str, parts: tuple[str, ...], above: frozenset[str]) -> Iterator[_File]:
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be read ({error.strerror}); "
            "check its permissions or leave it out."
        ) from error
    for entry in found:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        below = (*parts, entry.name)
        if entry.is_dir():
            yield from _walk(entry.path, below, above | {real})
        elif entry.is_file():
            yield _File(path=entry.path, parts=below, length=entry.stat().st_size)


def _pictures_of(files: list[_File], folder: Path) -> list[_File]:
    pictures = [file for file in files if file.suffix in SUFFIXES]
    if not pictures:
        found = f"{len(files)} other files" if files else "nothing"
        raise ValueError(
            f"No pictures in {folder}, found {found}; pictures end in {' '.join(SUFFIXES)}, "
            "and data sets in .parquet or .tar."
        )
    return pictures


def _open_folder(folder: Path, size: int) -> tuple[Rows, Rows | None]:
    """Opens a folder: pictures, class sub-folders, or either below train/ and val/ or test/."""
    files = _files(folder)
    if not any(file.suffix in SUFFIXES for file in files):
        shards = [file for file in files if file.suffix in (".parquet", ".tar")]
        if shards:
            return _open_shards(shards, folder, size)
    pictures = _pictures_of(files, folder)
    train, held_out = _split_folders({file.parts[0] for file in pictures if len(file.parts) > 1})
    if train is None:
        classes = _classes(pictures, 0, folder)
        return _folder_rows(pictures, classes, 0, size), None
    parts = [
        [file for file in pictures if file.parts[0] == name] for name in (train, held_out) if name
    ]
    known = [_classes(part, 1, folder / part[0].parts[0]) for part in parts]
    # The splits share one list of classes, unless one of them has none.
    shared = tuple(sorted(set().union(*known)))
    splits = [
        _folder_rows(part, shared if own else (), 1, size)
        for part, own in zip(parts, known, strict=True)
    ]
    return splits[0], splits[1] if held_out else None


def _split_folders(names: set[str]) -> tuple[str | None, str | None]:
    """Returns which sub-folders are the training and the held-out split, None for neither.

    "train" may also be a class (beside "bus" and "car"), so it counts as a split only alone or
    beside a held-out split.
    """
    lower = {name.lower(): name for name in sorted(names)}
    train = next((lower[name] for name in TRAIN_NAMES if name in lower), None)
    held_out = next((lower[name] for name in HELD_OUT_NAMES if name in lower), None)
    if train is None or (held_out is None and len(names) > 1):
        return None, None
    return train, held_out


def _classes(files: list[_File], depth: int, folder: Path) -> tuple[str, ...]:
    """Returns the class sub-folders, () when the pictures lie in the folder itself."""
    direct = [file for file in files if len(file.parts) == depth + 1]
    if direct and len(direct) < len(files):
        below = next(file for file in files if len(file.parts) > depth + 1)
        raise ValueError(
            f"{folder} holds both pictures ({direct[0].parts[-1]}) and sub-folders of pictures "
            f"({below.parts[depth]}); put every picture into a class sub-folder, or none."
        )
    return () if direct else tuple(sorted({file.parts[depth] for file in files}))


def _folder_rows(files: list[_File], class_names: tuple[str, ...], depth: int, size: int) -> Rows:
    """Returns the files as rows; the sub-folder at `depth` is the class, if there are classes."""
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    # `load_dataset("imagefolder")` takes 27 s to list 60,000 files and copies the list to a cache;
    # this takes half a second and leaves nothing behind.
    dataset = Dataset.from_dict(
        {"image": [file.path for file in files]},
        features=Features({"image": ImageFeature(decode=False)}),
    )
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[file.parts[depth]] if class_names else 0 for file in files]
    return Rows(
        names=["/".join(file.parts) for file in files],
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=class_names,
        decode=_table_decoder(dataset, "image", size),
        lengths=[file.length for file in files],
        facts="folder 1",
    )


# Tables: Parquet, shards, the hub


def _table_decoder(dataset: Any, column: str, size: int) -> Callable[[Sequence[int]], Decoded]:
    """Returns a function that decodes rows of a `datasets.Dataset` in a pool of threads."""

    def decode_row(row: dict[str, Any] | None) -> Tensor | UnreadablePicture:
        found = row or {"bytes": None, "path": None}
        source = found["bytes"] if found["bytes"] is not None else found["path"]
        if source is None:
            return UnreadablePicture("the row holds no picture")
        try:
            return _decode_square(source, size)
        except UnreadablePicture as error:
            return error

    def decode(indices: Sequence[int]) -> Decoded:
        rows = dataset[list(indices)][column] if len(indices) else []
        workers = min(os.cpu_count() or 1, max(1, len(rows)))
        with _quiet_pillow(), ThreadPoolExecutor(workers) as pool:
            return list(pool.map(decode_row, rows))

    return decode


def _matches(pattern: str) -> list[_File]:
    paths = sorted(glob.glob(os.path.expanduser(pattern), recursive=True))
    if not paths:
        raise ValueError(f"No file matches {pattern!r} (from {Path.cwd()}); check the pattern.")
    return [
        _File(path=path, parts=Path(path).parts[-2:], length=os.path.getsize(path))
        for path in paths
    ]


def _open_shards(files: list[_File], origin: Path, size: int) -> tuple[Rows, Rows | None]:
    """Opens Parquet files or WebDataset shards; splits are told by their names."""
    from datasets import load_dataset

    suffixes = {file.suffix for file in files}
    kinds = {".parquet": "parquet", ".tar": "webdataset"}
    if len(suffixes) > 1 or not suffixes <= set(kinds):
        raise ValueError(
            f"Expected a folder of pictures, .parquet files or .tar shards, {origin} gives "
            f"{' and '.join(sorted(suffixes)) or 'no'} files; name one kind, or the folder that "
            "holds the pictures."
        )
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(_split_of(file), []).append(glob.escape(os.path.abspath(file.path)))
    if "train" not in groups:  # nothing but a test split: that is what there is to learn from
        groups = {"train": [path for name in sorted(groups) for path in groups[name]]}
    with _quiet_datasets():
        tables = _told(origin, lambda: load_dataset(kinds[suffixes.pop()], data_files=groups))
    return _open_tables(tables, str(origin), size)


def _split_of(file: _File) -> str:
    """Returns the split that a shard's name or folder tells, "train" when it tells none."""
    # The file's own name speaks before the folders it lies in.
    for part in reversed(file.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for name in (*TRAIN_NAMES, *HELD_OUT_NAMES):
            if name in words:
                return "train" if name in TRAIN_NAMES else name
    return "train"


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Hides the progress bars of `datasets`, unless the user has hidden them already."""
    from datasets.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _told(origin: object, load: Callable[[], Any]) -> Any:
    """Loads, and tells the failures of `datasets` in one line."""
    from tarfile import TarError

    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    failures = (
        *(DatasetsError, HfHubHTTPError, ValueError, RuntimeError, TarError),
        *_network_errors(),
    )
    try:
        return load()
    except failures as error:
        cause = error.__cause__ or error
        raise ValueError(f"{origin} cannot be read as a data set: {_one_line(cause)}.") from error


def _open_tables(tables: Any, origin: str, size: int) -> tuple[Rows, Rows | None]:
    """Opens the splits of a `datasets.DatasetDict`."""
    train = next((name for name in TRAIN_NAMES if name in tables), next(iter(tables)))
    held_out = next((name for name in HELD_OUT_NAMES if name in tables and name != train), None)
    splits = [tables[name] for name in (train, held_out) if name is not None]
    column = _image_column(splits[0], origin)
    class_names, labels = _table_labels(splits, origin)
    rows = [
        _table_rows(split, column, class_names if known is not None else (), known, size)
        for split, known in zip(splits, labels, strict=True)
    ]
    return rows[0], rows[1] if held_out is not None else None


def _image_column(dataset: Any, origin: str) -> str:
    from datasets import Image as ImageFeature

    features = dataset.features
    images = [name for name, kind in features.items() if isinstance(kind, ImageFeature)]
    named = [name for name in IMAGE_COLUMNS if name in features]
    both = [name for name in named if name in images]
    for column in (*both, *images, *named):
        return str(column)
    raise ValueError(
        f"{origin} has no column of pictures: expected one of type Image or named "
        f"{', '.join(IMAGE_COLUMNS)}, got {', '.join(features)}."
    )


def _table_rows(
    dataset: Any, column: str, class_names: tuple[str, ...], labels: Tensor | None, size: int
) -> Rows:
    from datasets import Image as ImageFeature

    if "__key__" in dataset.features:
        names = [str(key) for key in dataset["__key__"]]
    else:
        names = [str(index) for index in range(len(dataset))]
    pictures = dataset.select_columns([column]).cast_column(column, ImageFeature(decode=False))
    return Rows(
        names=names,
        labels=torch.zeros(len(names), dtype=torch.int64) if labels is None else labels,
        class_names=class_names,
        decode=_table_decoder(pictures, column, size),
        lengths=[],
        facts=f"table 1 {column} {dataset.data.nbytes}",
    )


def _table_labels(splits: list[Any], origin: str) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """Returns the class names and the labels of each split, None for a split without."""
    column = _label_column(splits[0])
    if column is None:
        return (), [None] * len(splits)
    values = [_label_values(split, column, origin) for split in splits]
    known = getattr(splits[0].features[column], "names", None)
    if known:
        numbers = {index: index for index in range(len(known))}
    else:
        seen = sorted({value for part in values if part is not None for value in part})
        numbers = {value: index for index, value in enumerate(seen)}
        known = [str(value) for value in seen]
    labels = [
        None if part is None else torch.tensor([numbers[v] for v in part], dtype=torch.int64)
        for part in values
    ]
    return tuple(known), labels


def _label_column(dataset: Any) -> str | None:
    from datasets import ClassLabel

    features = dataset.features
    classes = [name for name, kind in features.items() if isinstance(kind, ClassLabel)]
    kinds = ("int", "uint", "string", "large_string", "bool")
    plain = [
        name
        for name in LABEL_COLUMNS
        if str(getattr(features.get(name), "dtype", "")).startswith(kinds)
    ]
    for column in (*[name for name in LABEL_COLUMNS if name in classes], *classes, *plain):
        return str(column)
    return None


def _label_values(dataset: Any, column: str, origin: str) -> list[Any] | None:
    """Returns the labels as they stand, None when the split has none (missing, or all -1)."""
    if column not in dataset.features:
        return None
    values = list(dataset.select_columns([column])[:][column])
    missing = sum(value is None or value == -1 for value in values)
    if missing == len(values):
        return None
    if missing:
        raise ValueError(
            f"{missing} of {len(values)} rows of {origin} have no {column!r}; "
            "label them all, or remove the column."
        )
    return values


def _is_hub_name(source: str) -> bool:
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source) is not None


def _open_hub(source: str, size: int) -> tuple[Rows, Rows | None]:
    from datasets import load_dataset

    name, _, subset = source.partition(":")
    _check_hub(name)
    tables = _told(f"The hub data set {source}", lambda: load_dataset(name, subset or None))
    return _open_tables(tables, source, size)


def _check_hub(name: str) -> None:
    """Raises when the hub cannot be reached or does not know the name.

    One quick question first: `load_dataset` tries again and again for half a minute.
    """
    from datasets import config
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if (Path(config.HF_DATASETS_CACHE) / name.replace("/", "___").lower()).is_dir():
        return
    here = _missing(Path(name))
    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"{here} It is no data set of the hub either: {_one_line(error)}."
        ) from error
    except _network_errors() as error:
        raise ValueError(
            f"{here} If {name} is a data set of the hub, the hub cannot be reached "
            f"({_one_line(error)}); check the connection."
        ) from error


def _network_errors() -> tuple[type[Exception], ...]:
    """Returns what a failed connection raises.

    The hub's client speaks through requests, httpx or httpx2, by version, and passes their
    errors on; all three call the base of them `HTTPError` or derive from `OSError`.
    """
    from huggingface_hub import get_session

    library = sys.modules[type(get_session()).__module__.partition(".")[0]]
    return (OSError, getattr(library, "HTTPError", OSError))
