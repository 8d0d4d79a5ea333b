"""Folders of images, read where they lie.

Images are named by their paths below the folder, as "cat/001.png"; sub-folders are classes, or
the splits train/ and val/ or test/ with their classes below them.
"""

import os
from pathlib import Path

import torch

from vqvae2.data.decode import decode_images
from vqvae2.data.listing import (
    TRAIN_NAMES,
    VALIDATION_NAMES,
    ImageListing,
    Splits,
    missing,
    suffix,
)

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


def open_folder(folder: Path, files: list[str], size: int) -> Splits:
    """Opens a folder: images, class sub-folders, or either below train/ and val/ or test/.

    Arguments:
        folder: Where the images lie.
        files: As `list_files` gives them.
        size: Side of the square images, pixels.
    """
    names = _only_images(files, folder)
    train, validation = _split_folders({name.split("/")[0] for name in names if "/" in name})
    if train is None:
        return folder_rows(folder, names, size, class_names=_classes(folder, names, 0)), None
    splits = [
        [name for name in names if name.startswith(f"{split}/")]
        for split in (train, validation)
        if split is not None
    ]
    classes = [_classes(folder, split, 1) for split in splits]
    # The splits share one list of classes, unless one of them has none.
    shared = tuple(sorted(set().union(*classes)))
    rows = [
        folder_rows(folder, split, size, class_names=shared if own else (), depth=1)
        for split, own in zip(splits, classes, strict=True)
    ]
    return rows[0], rows[1] if validation is not None else None


def list_images(folder: Path) -> list[str]:
    """Returns the names of the images in and below a folder, sorted folder by folder."""
    if not folder.is_dir():
        wanted = f"Expected a folder of images, {folder} is a file; give the folder it lies in."
        raise ValueError(wanted if folder.exists() else missing(folder))
    return _only_images(list_files(str(folder)), folder)


def folder_rows(
    folder: Path, names: list[str], size: int, *, class_names: tuple[str, ...] = (), depth: int = 0
) -> ImageListing:
    """Returns images of a folder as rows.

    Arguments:
        folder: Where the images lie.
        names: As `list_images` gives them.
        size: Side of the square images, pixels.
        class_names: Empty without labels.
        depth: Which part of a name is its class: 0 for "cat/001.png", 1 for "train/cat/001.png".
    """
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[name.split("/")[depth]] if class_names else 0 for name in names]
    paths = [os.path.join(folder, name) for name in names]
    return ImageListing(
        names=names,
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=class_names,
        decode=lambda indices: decode_images([paths[index] for index in indices], size),
        lengths=[os.path.getsize(path) for path in paths],
        facts="folder 1",
    )


def list_files(folder: str, prefix: str = "", above: frozenset[str] = frozenset()) -> list[str]:
    """Returns the names of the files in and below a folder, but for hidden ones.

    Arguments:
        folder: Where to look.
        prefix: What stands before each name, for folders below the first.
        above: The folders that lead to this one, where links end.
    """
    real = os.path.realpath(folder)
    if real in above:  # a link that leads back up
        return []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be read ({error.strerror}); "
            "check its permissions or leave it out."
        ) from error
    names: list[str] = []
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names += list_files(entry.path, f"{prefix}{entry.name}/", above | {real})
        elif entry.is_file():
            names.append(prefix + entry.name)
    return names


def _only_images(files: list[str], folder: Path) -> list[str]:
    dataset = [name for name in files if suffix(name) in SUFFIXES]
    if not dataset:
        found = f"{len(files)} other files" if files else "nothing"
        raise ValueError(
            f"No images in {folder}, found {found}; images end in {' '.join(SUFFIXES)}, "
            "and data sets in .parquet or .tar."
        )
    return dataset


def _split_folders(names: set[str]) -> tuple[str | None, str | None]:
    """Returns which sub-folders are the training and the validation split, None for neither.

    "train" may also be a class (beside "bus" and "car"), so it counts as a split only alone or
    beside a validation split.
    """
    lower = {name.lower(): name for name in sorted(names)}
    train = next((lower[name] for name in TRAIN_NAMES if name in lower), None)
    validation = next((lower[name] for name in VALIDATION_NAMES if name in lower), None)
    if train is None or (validation is None and len(names) > 1):
        return None, None
    return train, validation


def _classes(folder: Path, names: list[str], depth: int) -> tuple[str, ...]:
    """Returns the class sub-folders, () when the images lie in the folder itself."""
    direct = [name for name in names if name.count("/") == depth]
    below = [name for name in names if name.count("/") > depth]
    if direct and below:
        cover = folder / direct[0]
        raise ValueError(
            f"{cover.parent} holds both images ({cover.name}) and sub-folders of images "
            f"({below[0].split('/')[depth]}); put every image into a class sub-folder, or none."
        )
    return tuple(sorted({name.split("/")[depth] for name in below}))
