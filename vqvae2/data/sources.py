"""Where images come from: a folder, Parquet files, WebDataset shards, the hub, the built-in set.

Each source gives `Rows`: a training split, and a validation split where it brings one.
"""

import glob
import os
import re
from pathlib import Path

from vqvae2.data import synthetic
from vqvae2.data.folders import SUFFIXES, list_files, open_folder
from vqvae2.data.listing import ImageListing, Splits, missing, suffix
from vqvae2.data.tables import SHARD_KINDS, open_hub, open_shards


def open_source(source: str, size: int) -> Splits:
    """Opens a folder, a file, a glob of files or a hub data set, whichever `source` names."""
    path = Path(source).expanduser()
    if os.path.isdir(path):  # unlike `path.is_dir()`, never raises
        return _open_files(path, size)
    if os.path.isfile(path):
        return open_shards([str(path)], source, size)
    if glob.has_magic(source):
        files = sorted(glob.glob(str(path), recursive=True))
        if not files:
            raise ValueError(f"No file matches {source!r} (from {Path.cwd()}); check the pattern.")
        return open_shards(files, source, size)
    if re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?(:[\w.-]+)?", source):
        return open_hub(source, size)
    raise ValueError(missing(path))


def synthetic_rows(total: int, size: int, seed: int) -> ImageListing:
    """Returns the built-in set, with `total` images."""
    if total < 2:
        raise ValueError(f"synthetic_images must be at least 2, got {total}.")
    return ImageListing(
        names=[str(index) for index in range(total)],
        labels=synthetic.labels_of(range(total), seed),
        class_names=synthetic.CLASS_NAMES,
        decode=lambda indices: list(synthetic.render(indices, size, seed).images),
        lengths=[],
        facts=f"synthetic 1 seed {seed}",
    )


def _open_files(folder: Path, size: int) -> Splits:
    """Opens what a folder holds: images, or shards if there is no image."""
    files = list_files(str(folder))
    shards = [str(folder / name) for name in files if suffix(name) in SHARD_KINDS]
    if shards and not any(suffix(name) in SUFFIXES for name in files):
        return open_shards(shards, str(folder), size)
    return open_folder(folder, files, size)
