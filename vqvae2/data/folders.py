"""Folders of images.

Images are named by their paths below the folder, such as "cat/001.png". Sub-folders are classes,
or the splits train/ and val/ or test/ with their classes below them.
"""

import os
from pathlib import Path

import torch

from vqvae2.data.decode import decode_images
from vqvae2.data.listing import (
    TRAIN_NAMES,
    VALIDATION_NAMES,
    ImageListing,
    ListedSplits,
    missing_path,
    suffix,
)

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip


def open_folder(folder: Path, files: list[str], size: int) -> ListedSplits:
    """The splits of a folder: images or class sub-folders, maybe below train/ and val/ or test/.

    Arguments:
        folder: The folder of the images.
        files: Names of all files, as `list_files` returns them.
        size: Side of the square images, pixels.
    """
    names = _only_images(files, folder)
    train, validation = _split_folders({name.split("/")[0] for name in names if "/" in name})
    if train is None:
        classes = _classes(folder, names, 0)
        return folder_listing(folder, names, size, class_names=classes), None
    splits = [
        [name for name in names if name.startswith(f"{split}/")]
        for split in (train, validation)
        if split is not None
    ]
    classes_by_split = [_classes(folder, split, 1) for split in splits]
    # The splits share one list of classes, except a split without any.
    shared = tuple(sorted(set().union(*classes_by_split)))
    listings = [
        folder_listing(folder, split, size, class_names=shared if classes else (), depth=1)
        for split, classes in zip(splits, classes_by_split, strict=True)
    ]
    return listings[0], listings[1] if validation is not None else None


def folder_and_names(path: Path) -> tuple[Path, list[str]]:
    """A folder and the names of the images in and below it, sorted folder by folder.

    Arguments:
        path: The folder; or the file of an image, for its folder and its name alone.
    """
    if path.is_dir():
        return path, _only_images(list_files(str(path)), path)
    if not path.exists():
        raise ValueError(missing_path(path))
    if suffix(path.name) not in SUFFIXES:
        raise ValueError(
            f"{path} is no image and no folder of images; images end in {' '.join(SUFFIXES)}."
        )
    return path.parent, [path.name]


def folder_listing(
    folder: Path, names: list[str], size: int, *, class_names: tuple[str, ...] = (), depth: int = 0
) -> ImageListing:
    """The listing of some images of a folder.

    Arguments:
        folder: The folder of the images.
        names: Names of the images, as `folder_and_names` returns them.
        size: Side of the square images, pixels.
        class_names: () without labels.
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


def list_files(folder: str, prefix: str = "", parents: frozenset[str] = frozenset()) -> list[str]:
    """The names of the files in and below a folder, except hidden ones.

    Arguments:
        folder: The folder to list.
        prefix: Put before each name, for folders below the first.
        parents: The folders above this one; a link back to one of them is not followed.
    """
    real = os.path.realpath(folder)
    if real in parents:
        return []
    try:
        with os.scandir(folder) as iterator:
            entries = sorted(iterator, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(
            f"The folder {folder} cannot be read ({error.strerror}); "
            "check its permissions or leave it out."
        ) from error
    names: list[str] = []
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            names += list_files(entry.path, f"{prefix}{entry.name}/", parents | {real})
        elif entry.is_file():
            names.append(prefix + entry.name)
    return names


def _only_images(files: list[str], folder: Path) -> list[str]:
    names = [name for name in files if suffix(name) in SUFFIXES]
    if not names:
        content = f"{len(files)} other files" if files else "nothing"
        raise ValueError(
            f"No images in {folder}, found {content}; images end in {' '.join(SUFFIXES)}, "
            "and data sets in .parquet or .tar."
        )
    return names


def _split_folders(names: set[str]) -> tuple[str | None, str | None]:
    """Which sub-folders are the training and the validation split, None for neither.

    "train" may also be a class (beside "bus" and "car"), so it is a split only if it is the only
    sub-folder or there is a validation split.
    """
    lower = {name.lower(): name for name in sorted(names)}
    train = next((lower[name] for name in TRAIN_NAMES if name in lower), None)
    validation = next((lower[name] for name in VALIDATION_NAMES if name in lower), None)
    if train is None or (validation is None and len(names) > 1):
        return None, None
    return train, validation


def _classes(folder: Path, names: list[str], depth: int) -> tuple[str, ...]:
    """The class sub-folders, () where the images are in the folder itself."""
    direct = [name for name in names if name.count("/") == depth]
    below = [name for name in names if name.count("/") > depth]
    if direct and below:
        cover = folder / direct[0]
        raise ValueError(
            f"{cover.parent} holds both images ({cover.name}) and sub-folders of images "
            f"({below[0].split('/')[depth]}); put every image into a class sub-folder, or none."
        )
    return tuple(sorted({name.split("/")[depth] for name in below}))
