"""Tables of images: Parquet files, WebDataset shards, data sets of the hub.

All three are converted once into the cache of the `datasets` library and read from there.

Legend: `N` images.
"""

import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vqvae2.data.decode import Decoded, decode_images
from vqvae2.data.listing import (
    TRAIN_NAMES,
    VALIDATION_NAMES,
    ImageListing,
    Label,
    ListedSplits,
    missing_path,
    sorted_labels,
    suffix,
)
from vqvae2.messages import one_line

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

T = TypeVar("T")

SHARD_KINDS = {".parquet": "parquet", ".tar": "webdataset"}
"""Names of the file formats in the `datasets` library."""

IMAGE_COLUMNS = ("image", "img", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")

HUB_TIMEOUT = 10.0
"""Seconds until a hub that does not answer counts as unreachable."""


def open_shards(files: list[str], origin: str, size: int) -> ListedSplits:
    """The splits of Parquet files or WebDataset shards, by the names of the files.

    Arguments:
        files: Paths of the shards.
        origin: Name of the source in messages.
        size: Side of the square images, pixels.
    """
    from datasets import load_dataset

    suffixes = sorted({suffix(file) for file in files})
    if len(suffixes) > 1 or suffixes[0] not in SHARD_KINDS:
        raise ValueError(
            f"Expected a folder of images, .parquet files or .tar shards, {origin} gives "
            f"{' and '.join(suffixes) or 'no'} files; name one kind, or the folder that "
            "holds the images."
        )
    paths = [glob.escape(os.path.abspath(file)) for file in files]
    train, validation = split_files(paths)
    groups = {"train": train, "validation": validation} if validation else {"train": train}
    kind = SHARD_KINDS[suffixes[0]]
    return _open_tables(_load(origin, lambda: load_dataset(kind, data_files=groups)), origin, size)


def split_files(files: Sequence[str]) -> tuple[list[str], list[str]]:
    """The shards of the training and of the validation split; the latter may be empty."""
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(split_of(file), []).append(file)
    if "train" not in groups:  # a source with only a test split is trained on
        return [file for name in sorted(groups) for file in groups[name]], []
    validation = next((groups[name] for name in VALIDATION_NAMES if name in groups), [])
    return groups["train"], validation


def split_of(file: str) -> str:
    """The split that the name of a shard, or else of its folder, contains; "train" without one."""
    path = Path(file)
    for words in (re.split(r"[^a-z]+", path.name.lower()), [path.parent.name.lower()]):
        for name in (*TRAIN_NAMES, *VALIDATION_NAMES):
            if name in words:
                return "train" if name in TRAIN_NAMES else name
    return "train"


def open_hub(source: str, size: int) -> ListedSplits:
    """The splits of a data set of the hub, "owner/name" or "owner/name:config"."""
    from datasets import load_dataset

    name, _, subset = source.partition(":")
    _require_hub(name)
    tables = _load(f"The hub data set {source}", lambda: load_dataset(name, subset or None))
    return _open_tables(tables, source, size)


def _require_hub(name: str) -> None:
    """Raises ValueError if the hub cannot be reached or does not have the data set.

    One quick request first: `load_dataset` would repeat its own for half a minute.
    """
    from datasets import config
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if (Path(config.HF_DATASETS_CACHE) / name.replace("/", "___").lower()).is_dir():
        return
    message = missing_path(Path(name))
    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"{message} It is no data set of the hub either: {one_line(error)}."
        ) from error
    # The kind of a connection error depends on the HTTP client of the hub's library.
    except Exception as error:
        raise ValueError(
            f"{message} If {name} is a data set of the hub, the hub cannot be reached "
            f"({one_line(error)}); check the connection."
        ) from error


def _load(origin: str, load: Callable[[], T]) -> T:
    """The result of `load`; every error of `datasets` and its readers becomes a ValueError."""
    try:
        return load()
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(f"{origin} cannot be read as a data set: {one_line(cause)}.") from error


def _open_tables(tables: "DatasetDict", origin: str, size: int) -> ListedSplits:
    train = next((name for name in TRAIN_NAMES if name in tables), next(iter(tables)))
    validation = next(
        (name for name in VALIDATION_NAMES if name in tables and name != train), None
    )
    splits = [tables[name] for name in (train, validation) if name is not None]
    column = image_column(splits[0].features, origin)
    class_names, labels_by_split = _table_labels(splits, origin)
    listings = [
        _table_listing(split, column, class_names if labels is not None else (), labels, size)
        for split, labels in zip(splits, labels_by_split, strict=True)
    ]
    return listings[0], listings[1] if validation is not None else None


def _table_listing(
    table: "Dataset", column: str, class_names: tuple[str, ...], labels: Tensor | None, size: int
) -> ImageListing:
    from datasets import Image

    keys = table["__key__"] if "__key__" in table.features else range(len(table))
    images = table.select_columns([column]).cast_column(column, Image(decode=False))

    def decode(indices: Sequence[int]) -> Decoded:
        cells = images[list(indices)][column]
        return decode_images([cell and (cell["bytes"] or cell["path"]) for cell in cells], size)

    return ImageListing(
        names=[str(key) for key in keys],
        labels=torch.zeros(len(images), dtype=torch.int64) if labels is None else labels,
        class_names=class_names,
        decode=decode,
        facts=f"table 1 {column} {images.data.nbytes}",
    )


def image_column(features: "Features", origin: str) -> str:
    """The column of a table that holds images; ValueError without one."""
    from datasets import Image

    columns = _columns(features, Image, IMAGE_COLUMNS)
    if columns:
        return columns[0]
    raise ValueError(
        f"{origin} has no column of images: expected one of type Image or named "
        f"{', '.join(IMAGE_COLUMNS)}, got {', '.join(features)}."
    )


def label_column(features: "Features") -> str | None:
    """The column of a table that holds labels, None without one."""
    from datasets import ClassLabel

    # Neither lists of labels nor measured values.
    kinds = ("int", "uint", "string", "large_string", "bool")
    for column in _columns(features, ClassLabel, LABEL_COLUMNS):
        if str(getattr(features[column], "dtype", "")).startswith(kinds):
            return column
    return None


def _columns(features: "Features", kind: type, names: tuple[str, ...]) -> list[str]:
    """Columns by preference: of the type with a usual name, of the type, with a usual name."""
    named = [name for name in names if name in features]
    typed = [str(name) for name, feature in features.items() if isinstance(feature, kind)]
    return [*(name for name in named if name in typed), *typed, *named]


def _table_labels(
    splits: "list[Dataset]", origin: str
) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """The class names, and the labels (N,) of each split, None for a split without."""
    column = label_column(splits[0].features)
    if column is None:
        return (), [None] * len(splits)
    stored = [_stored_labels(split, column, origin) for split in splits]
    names = getattr(splits[0].features[column], "names", None)
    values = sorted_labels({label for labels in stored for label in labels or ()})
    classes = range(len(names)) if names else values
    numbers = {label: number for number, label in enumerate(classes)}
    indices = [
        None if labels is None else torch.tensor([numbers[label] for label in labels]).long()
        for labels in stored
    ]
    return tuple(names or map(str, values)), indices


def _stored_labels(table: "Dataset", column: str, origin: str) -> list[Label] | None:
    """The labels as they are stored, None if all are missing or -1."""
    if column not in table.features:
        return None
    labels: list[Label | None] = table.select_columns([column])[:][column]
    present = [label for label in labels if label is not None and label != -1]
    if present and len(present) < len(labels):
        raise ValueError(
            f"{len(labels) - len(present)} of {len(labels)} rows of {origin} have no {column!r}; "
            "label them all, or remove the column."
        )
    return present or None
