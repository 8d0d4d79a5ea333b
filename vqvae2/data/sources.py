"""Sources of images: a folder, Parquet files, WebDataset shards, the hub, the built-in set."""

import glob
import os
import re
from pathlib import Path

from vqvae2.data import synthetic
from vqvae2.data.folders import SUFFIXES, list_files, open_folder
from vqvae2.data.listing import ImageListing, ListedSplits, missing_path, suffix
from vqvae2.data.tables import SHARD_KINDS, open_hub, open_shards


def open_source(source: str, size: int) -> ListedSplits:
    """The splits of a folder, a file, a glob of files or a hub data set."""
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
    raise ValueError(missing_path(path))


def synthetic_listing(num_images: int, size: int, seed: int) -> ImageListing:
    """The listing of the built-in set."""
    return ImageListing(
        names=[str(index) for index in range(num_images)],
        labels=synthetic.labels_of(range(num_images), seed),
        class_names=synthetic.CLASS_NAMES,
        decode=lambda indices: list(synthetic.render(indices, size, seed).images),
        facts=f"synthetic 1 seed {seed}",
    )


def _open_files(folder: Path, size: int) -> ListedSplits:
    """The splits of a folder's images, or of its shards if it has no images."""
    files = list_files(str(folder))
    shards = [str(folder / name) for name in files if suffix(name) in SHARD_KINDS]
    if shards and not any(suffix(name) in SUFFIXES for name in files):
        return open_shards(shards, str(folder), size)
    return open_folder(folder, files, size)
