"""Where pictures come from: a folder, Parquet files, WebDataset shards, the hub, the built-in set.

Each source gives `Rows`: a training split, and a held-out split where it brings one, listed and
labelled but not yet decoded. A folder of pictures is read where it lies; Parquet files, shards
and hub data sets are converted once into the cache of the `datasets` library.
"""

import difflib
import glob
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae2.data import synthetic
from vqvae2.data.decode import Decoded, decode_pictures, one_line

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip
SHARD_KINDS = {".parquet": "parquet", ".tar": "webdataset"}  # what `datasets` calls them
TRAIN_NAMES = ("train", "training")
HELD_OUT_NAMES = ("val", "valid", "validation", "dev", "test", "testing")  # the first found counts
IMAGE_COLUMNS = ("image", "img", "png", "jpg", "jpeg", "webp")
LABEL_COLUMNS = ("label", "labels", "cls", "fine_label")
HUB_TIMEOUT = 10.0  # seconds until a hub that does not answer counts as out of reach


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


Splits = tuple[Rows, Rows | None]  # the training split, and a held-out one if the source has it


def open_source(source: str, size: int) -> Splits:
    """Opens a folder, a file, a glob of files or a hub data set, whichever `source` names."""
    path = Path(source).expanduser()
    if os.path.isdir(path):  # unlike `path.is_dir()`, never raises
        return _open_folder(path, size)
    if os.path.isfile(path):
        return _open_shards([str(path)], source, size)
    if glob.has_magic(source):
        files = sorted(glob.glob(str(path), recursive=True))
        if not files:
            raise ValueError(f"No file matches {source!r} (from {Path.cwd()}); check the pattern.")
        return _open_shards(files, source, size)
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source):
        return _open_hub(source, size)
    raise ValueError(_missing(path))


def synthetic_rows(total: int, size: int, seed: int) -> Rows:
    """Returns the built-in set, with `total` pictures."""
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


def _missing(path: Path) -> str:
    """Returns the message for a path that is not there, with a near name where there is one."""
    parent = path.parent
    if not os.path.isdir(parent):
        return f"There is no {path.absolute()}: {parent.absolute()} is no folder; check the path."
    siblings = os.listdir(parent) if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(path.name, siblings, n=1)
    hint = f"did you mean {parent / near[0]}?" if near else "check the path."
    return f"There is no folder or file {path.absolute()}; {hint}"


# Folders of pictures, whose files are named by their paths below the folder, as "cat/001.png"


def list_pictures(folder: Path) -> list[str]:
    """Returns the names of the pictures in and below a folder, sorted folder by folder."""
    if not folder.is_dir():
        wanted = f"Expected a folder of pictures, {folder} is a file; give the folder it lies in."
        raise ValueError(wanted if folder.exists() else _missing(folder))
    return _only_pictures(_list_files(str(folder)), folder)


def folder_rows(
    folder: Path, names: list[str], size: int, *, class_names: tuple[str, ...] = (), depth: int = 0
) -> Rows:
    """Returns pictures of a folder as rows.

    Arguments:
        folder: Where the pictures lie.
        names: As `list_pictures` gives them.
        size: Side of the square pictures, pixels.
        class_names: Empty without labels.
        depth: Which part of a name is its class: 0 for "cat/001.png", 1 for "train/cat/001.png".
    """
    number = {name: index for index, name in enumerate(class_names)}
    labels = [number[name.split("/")[depth]] if class_names else 0 for name in names]
    paths = [os.path.join(folder, name) for name in names]
    return Rows(
        names=names,
        labels=torch.tensor(labels, dtype=torch.int64),
        class_names=class_names,
        decode=lambda indices: decode_pictures([paths[index] for index in indices], size),
        lengths=[os.path.getsize(path) for path in paths],
        facts="folder 1",
    )


def _open_folder(folder: Path, size: int) -> Splits:
    """Opens a folder: pictures, class sub-folders, or either below train/ and val/ or test/."""
    files = _list_files(str(folder))
    shards = [str(folder / name) for name in files if _suffix(name) in SHARD_KINDS]
    if shards and not any(_suffix(name) in SUFFIXES for name in files):
        return _open_shards(shards, str(folder), size)
    names = _only_pictures(files, folder)
    train, held_out = _split_folders({name.split("/")[0] for name in names if "/" in name})
    if train is None:
        return folder_rows(folder, names, size, class_names=_classes(folder, names, 0)), None
    splits = [
        [name for name in names if name.startswith(f"{split}/")]
        for split in (train, held_out)
        if split is not None
    ]
    classes = [_classes(folder, split, 1) for split in splits]
    # The splits share one list of classes, unless one of them has none.
    shared = tuple(sorted(set().union(*classes)))
    rows = [
        folder_rows(folder, split, size, class_names=shared if own else (), depth=1)
        for split, own in zip(splits, classes, strict=True)
    ]
    return rows[0], rows[1] if held_out is not None else None


def _list_files(folder: str, prefix: str = "", above: frozenset[str] = frozenset()) -> list[str]:
    """Returns the names of the files in and below a folder, but for hidden ones."""
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
            names += _list_files(entry.path, f"{prefix}{entry.name}/", above | {real})
        elif entry.is_file():
            names.append(prefix + entry.name)
    return names


def _only_pictures(files: list[str], folder: Path) -> list[str]:
    pictures = [name for name in files if _suffix(name) in SUFFIXES]
    if not pictures:
        found = f"{len(files)} other files" if files else "nothing"
        raise ValueError(
            f"No pictures in {folder}, found {found}; pictures end in {' '.join(SUFFIXES)}, "
            "and data sets in .parquet or .tar."
        )
    return pictures


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


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


def _classes(folder: Path, names: list[str], depth: int) -> tuple[str, ...]:
    """Returns the class sub-folders, () when the pictures lie in the folder itself."""
    direct = [name for name in names if name.count("/") == depth]
    below = [name for name in names if name.count("/") > depth]
    if direct and below:
        cover = folder / direct[0]
        raise ValueError(
            f"{cover.parent} holds both pictures ({cover.name}) and sub-folders of pictures "
            f"({below[0].split('/')[depth]}); put every picture into a class sub-folder, or none."
        )
    return tuple(sorted({name.split("/")[depth] for name in below}))


# Tables: Parquet files, shards, hub data sets


def _open_shards(files: list[str], origin: str, size: int) -> Splits:
    """Opens Parquet files or WebDataset shards; splits are told by their names."""
    from datasets import load_dataset

    suffixes = sorted({_suffix(file) for file in files})
    if len(suffixes) > 1 or suffixes[0] not in SHARD_KINDS:
        raise ValueError(
            f"Expected a folder of pictures, .parquet files or .tar shards, {origin} gives "
            f"{' and '.join(suffixes) or 'no'} files; name one kind, or the folder that "
            "holds the pictures."
        )
    groups: dict[str, list[str]] = {}
    for file in files:
        groups.setdefault(_split_of(file), []).append(glob.escape(os.path.abspath(file)))
    if "train" not in groups:  # nothing but a test split: that is what there is to learn from
        groups = {"train": [path for name in sorted(groups) for path in groups[name]]}
    kind = SHARD_KINDS[suffixes[0]]
    return _open_tables(_told(origin, lambda: load_dataset(kind, data_files=groups)), origin, size)


def _split_of(file: str) -> str:
    """Returns the split that a shard's name, or else its folder, tells; "train" without one."""
    path = Path(file)
    for words in (re.split(r"[^a-z]+", path.name.lower()), [path.parent.name.lower()]):
        for name in (*TRAIN_NAMES, *HELD_OUT_NAMES):
            if name in words:
                return "train" if name in TRAIN_NAMES else name
    return "train"


def _open_hub(source: str, size: int) -> Splits:
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
    held_out = next((name for name in HELD_OUT_NAMES if name in tables and name != train), None)
    splits = [tables[name] for name in (train, held_out) if name is not None]
    column = _image_column(splits[0], origin)
    class_names, labels = _table_labels(splits, origin)
    rows = [
        _table_rows(split, column, class_names, known, size)
        for split, known in zip(splits, labels, strict=True)
    ]
    return rows[0], rows[1] if held_out is not None else None


def _table_rows(
    dataset: Any, column: str, class_names: tuple[str, ...], labels: Tensor | None, size: int
) -> Rows:
    from datasets import Image

    keyed = "__key__" in dataset.features
    keys = dataset["__key__"] if keyed else range(len(dataset))
    pictures = dataset.select_columns([column]).cast_column(column, Image(decode=False))

    def decode(indices: Sequence[int]) -> Decoded:
        cells = pictures[list(indices)][column]
        return decode_pictures([cell and (cell["bytes"] or cell["path"]) for cell in cells], size)

    return Rows(
        names=[str(key) for key in keys],
        labels=torch.zeros(len(dataset), dtype=torch.int64) if labels is None else labels,
        class_names=() if labels is None else class_names,
        decode=decode,
        lengths=[],
        facts=f"table 1 {column} {dataset.data.nbytes}",
    )


def _image_column(dataset: Any, origin: str) -> str:
    from datasets import Image

    columns = _columns(dataset, Image, IMAGE_COLUMNS)
    if columns:
        return columns[0]
    raise ValueError(
        f"{origin} has no column of pictures: expected one of type Image or named "
        f"{', '.join(IMAGE_COLUMNS)}, got {', '.join(dataset.features)}."
    )


def _label_column(dataset: Any) -> str | None:
    from datasets import ClassLabel

    # Not a list of labels, nor a measured value.
    kinds = ("int", "uint", "string", "large_string", "bool")
    for column in _columns(dataset, ClassLabel, LABEL_COLUMNS):
        if str(getattr(dataset.features[column], "dtype", "")).startswith(kinds):
            return column
    return None


def _columns(dataset: Any, kind: type, names: tuple[str, ...]) -> list[str]:
    """Returns the columns of a type, those with a usual name first; then those with a name."""
    named = [name for name in names if name in dataset.features]
    typed = [str(name) for name, held in dataset.features.items() if isinstance(held, kind)]
    return [*(name for name in named if name in typed), *typed, *named]


def _table_labels(splits: list[Any], origin: str) -> tuple[tuple[str, ...], list[Tensor | None]]:
    """Returns the class names and the labels of each split, None for a split without."""
    column = _label_column(splits[0])
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
