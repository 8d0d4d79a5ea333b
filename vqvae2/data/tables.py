"""Tables of images: Parquet files, WebDataset shards, data sets of the hub.

All three are converted once into the cache of the `datasets` library and read from there.
"""

import glob
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.decode import Decoded, decode_images, one_line
from vqvae2.data.listing import (
    TRAIN_NAMES,
    VALIDATION_NAMES,
    ImageListing,
    Splits,
    missing,
    suffix,
)

SHARD_KINDS = {".parquet": "parquet", ".tar": "webdataset"}  # what `datasets` calls them
IMAGE_COLUMNS = ("image", "img", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")
HUB_TIMEOUT = 10.0  # seconds until a hub that does not answer counts as out of reach


def open_shards(files: list[str], origin: str, size: int) -> Splits:
    """Opens Parquet files or WebDataset shards; splits are told by their names."""
    from datasets import load_dataset

    suffixes = sorted({suffix(file) for file in files})
    if len(suffixes) > 1 or suffixes[0] not in SHARD_KINDS:
        raise ValueError(
            f"Expected a folder of images, .parquet files or .tar shards, {origin} gives "
            f"{' and '.join(suffixes) or 'no'} files; name one kind, or the folder that "
            "holds the images."
        )
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(split_of(file), []).append(glob.escape(os.path.abspath(file)))
    if "train" not in groups:  # nothing but a test split: that is what there is to learn from
        groups = {"train": [path for name in sorted(groups) for path in groups[name]]}
    kind = SHARD_KINDS[suffixes[0]]
    return _open_tables(_told(origin, lambda: load_dataset(kind, data_files=groups)), origin, size)


def split_of(file: str) -> str:
    """Returns the split that a shard's name, or else its folder, tells; "train" without one."""
    path = Path(file)
    for words in (re.split(r"[^a-z]+", path.name.lower()), [path.parent.name.lower()]):
        for name in (*TRAIN_NAMES, *VALIDATION_NAMES):
            if name in words:
                return "train" if name in TRAIN_NAMES else name
    return "train"


def open_hub(source: str, size: int) -> Splits:
    """Opens a data set of the hub, "owner/name" or "owner/name:config"."""
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
    here = missing(Path(name))
    try:
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT)
    except (HfHubHTTPError, HFValidationError) as error:
        raise ValueError(
            f"{here} It is no data set of the hub either: {one_line(error)}."
        ) from error
    # What a failed connection raises depends on the client that the hub's library speaks through.
    except Exception as error:
        raise ValueError(
            f"{here} If {name} is a data set of the hub, the hub cannot be reached "
            f"({one_line(error)}); check the connection."
        ) from error


def _told(origin: str, load: Callable[[], Any]) -> Any:
    """Loads, and tells whatever fails in `datasets` and the readers below it in one line."""
    try:
        return load()
    except Exception as error:
        cause = error.__cause__ or error
        raise ValueError(f"{origin} cannot be read as a data set: {one_line(cause)}.") from error


def _open_tables(tables: Any, origin: str, size: int) -> Splits:
    """Opens the splits of a `datasets.DatasetDict`."""
    train = next((name for name in TRAIN_NAMES if name in tables), next(iter(tables)))
    validation = next(
        (name for name in VALIDATION_NAMES if name in tables and name != train), None
    )
    splits = [tables[name] for name in (train, validation) if name is not None]
    column = image_column(splits[0].features, origin)
    class_names, labels = _table_labels(splits, origin)
    rows = [
        _table_rows(split, column, class_names, known, size)
        for split, known in zip(splits, labels, strict=True)
    ]
    return rows[0], rows[1] if validation is not None else None


def _table_rows(
    dataset: Any, column: str, class_names: tuple[str, ...], labels: Tensor | None, size: int
) -> ImageListing:
    from datasets import Image

    keyed = "__key__" in dataset.features
    keys = dataset["__key__"] if keyed else range(len(dataset))
    dataset = dataset.select_columns([column]).cast_column(column, Image(decode=False))

    def decode(indices: Sequence[int]) -> Decoded:
        cells = dataset[list(indices)][column]
        return decode_images([cell and (cell["bytes"] or cell["path"]) for cell in cells], size)

    return ImageListing(
        names=[str(key) for key in keys],
        labels=torch.zeros(len(dataset), dtype=torch.int64) if labels is None else labels,
        class_names=() if labels is None else class_names,
        decode=decode,
        lengths=[],
        facts=f"table 1 {column} {dataset.data.nbytes}",
    )


def image_column(features: Any, origin: str) -> str:
    """Returns which column of a table (its `datasets.Features`) holds images."""
    from datasets import Image

    columns = _columns(features, Image, IMAGE_COLUMNS)
    if columns:
        return columns[0]
    raise ValueError(
        f"{origin} has no column of images: expected one of type Image or named "
        f"{', '.join(IMAGE_COLUMNS)}, got {', '.join(features)}."
    )


def label_column(features: Any) -> str | None:
    """Returns which column of a table holds labels, None without."""
    from datasets import ClassLabel

    # Not a list of labels, nor a measured value.
    kinds = ("int", "uint", "string", "large_string", "bool")
    for column in _columns(features, ClassLabel, LABEL_COLUMNS):
        if str(getattr(features[column], "dtype", "")).startswith(kinds):
            return column
    return None


def _columns(features: Any, kind: type, names: tuple[str, ...]) -> list[str]:
    """Returns the columns of a type, those with a usual name first; then those with a name."""
    named = [name for name in names if name in features]
    typed = [str(name) for name, held in features.items() if isinstance(held, kind)]
    return [*(name for name in named if name in typed), *typed, *named]


def _table_labels(splits: list[Any], origin: str) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """Returns the class names and the labels of each split, None for a split without."""
    column = label_column(splits[0].features)
    if column is None:
        return (), [None] * len(splits)
    values = [_label_values(split, column, origin) for split in splits]
    known = getattr(splits[0].features[column], "names", None)
    seen = sorted({value for part in values for value in part or ()})
    numbers = {value: index for index, value in enumerate(range(len(known)) if known else seen)}
    labels = [
        None if part is None else torch.tensor([numbers[v] for v in part], dtype=torch.int64)
        for part in values
    ]
    return tuple(known or map(str, seen)), labels


def _label_values(dataset: Any, column: str, origin: str) -> list[Any] | None:
    """Returns the labels as they stand, None when the split has none (missing, or all -1)."""
    if column not in dataset.features:
        return None
    values: list[Any] = dataset.select_columns([column])[:][column]
    missing = sum(value is None or value == -1 for value in values)
    if missing == len(values):
        return None
    if missing:
        raise ValueError(
            f"{missing} of {len(values)} rows of {origin} have no {column!r}; "
            "label them all, or remove the column."
        )
    return values
