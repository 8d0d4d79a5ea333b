"""Files that are complete or absent, JSON files with a format and a version, the cache folder."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from vqvae2.configuration import Json, JsonObject

PART_SUFFIX = ".part"
"""Ending of a file while it is written."""


class UnknownVersion(ValueError):
    """A file is of another format or version."""


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically: to a temporary neighbour first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: Path, name: str, version: int, content: Mapping[str, Json]) -> None:
    """Writes a JSON file that begins with the name and the version of its format."""
    document = {"format": name, "version": version, **content}
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())


def read_json(path: Path, name: str, version: int, remedy: str = "make it again") -> JsonObject:
    """Reads the content of a file that `write_json` wrote.

    Arguments:
        remedy: what to do about a file of another version.

    Raises:
        UnknownVersion: the file is of another format or version.
        ValueError: the file is not JSON.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not readable as JSON ({error}); restore or remove it."
        raise ValueError(message) from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} must hold {name} version {version}, got a {type(document)}.")
    header = document.pop("format", None), document.pop("version", None)
    if header != (name, version):
        raise UnknownVersion(
            f"{path} must hold {name} version {version}, got {header[0]} version {header[1]}; "
            f"{remedy}."
        )
    return document


def cache_folder() -> Path:
    """The folder of downloads and features: VQVAE2_CACHE, or one in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("VQVAE2_CACHE") or f"{base}/vqvae2")
