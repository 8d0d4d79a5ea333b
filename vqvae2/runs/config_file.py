"""Configurations of runs as TOML or JSON files that people write.

A file names a preset and changes what it wants to change: fields that it leaves out are those of
the preset. A complete file, such as config.json of a run or what `vqvae2 presets NAME --toml`
prints, needs no preset that this version has.
"""

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from vqvae2.configuration import Json, from_dict, to_dict
from vqvae2.runs.config import RunConfig
from vqvae2.runs.presets import PRESETS, find_preset

HEADER = ("format", "version")
"""Of config.json in a run folder."""


def read_config(path: Path) -> RunConfig:
    """The config in a TOML or JSON file.

    Raises:
        ValueError: the file is missing, damaged, or no config.
    """
    content = read_object(path)
    for name in HEADER:
        content.pop(name, None)
    preset = content.get("preset")
    if preset in PRESETS:
        content = merged(to_dict(PRESETS[str(preset)]()), content)
    elif not {"autoencoder", "levels"} <= set(content):
        find_preset(str(preset or ""))  # raises with near names
    return from_dict(RunConfig, content, str(path))


def read_object(path: Path) -> dict[str, Json]:
    """The content of a TOML or JSON file."""
    if path.suffix not in (".toml", ".json"):
        raise ValueError(f"A configuration is a .toml or .json file, got {path}.")
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError:
        raise ValueError(f"There is no file {path}; check the path.") from None
    except ValueError as error:  # of the syntax, with the line, or of the encoding
        raise ValueError(f"{path} is not valid {path.suffix[1:].upper()}: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold fields of a run, got a {type(content).__name__}.")
    return content


def merged(base: Mapping[str, Json], changes: Mapping[str, Json]) -> dict[str, Json]:
    """`base` with the values of `changes`; objects of one kind are merged field by field."""
    result = dict(base)
    for name, value in changes.items():
        result[name] = merged_value(base.get(name), value)
    return result


def merged_value(base: Json, value: Json) -> Json:
    """`merged` of objects, and of lists of as many objects; otherwise the new value."""
    if isinstance(base, Mapping) and isinstance(value, Mapping):
        kind = base.get("kind")
        return merged(base, value) if value.get("kind", kind) == kind else value
    if isinstance(base, list) and isinstance(value, list) and len(base) == len(value):
        return [merged_value(old, new) for old, new in zip(base, value, strict=True)]
    return value


def to_toml(content: Mapping[str, Json]) -> str:
    """An object as TOML, which `tomllib` reads back; fields without a value are left out."""
    return "\n".join(toml_lines(content)).strip() + "\n"


def toml_lines(content: Mapping[str, Json], name: str = "") -> Iterator[str]:
    """The lines of a table: its values, then the tables in it."""
    tables = {key: value for key, value in content.items() if is_table(value)}
    for key, value in content.items():
        if key not in tables and value is not None:
            yield f"{toml_key(key)} = {toml_value(value)}"
    for key, value in tables.items():
        path = f"{name}.{toml_key(key)}".lstrip(".")
        if isinstance(value, Mapping):
            yield from ("", f"[{path}]", *toml_lines(value, path))
        elif isinstance(value, list):
            for item in value:
                yield from ("", f"[[{path}]]", *toml_lines(item, path))


def is_table(value: Json) -> bool:
    """Whether a value is an object, or a list of objects."""
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, Mapping) for item in value)
    return isinstance(value, Mapping)


def toml_key(key: str) -> str:
    """The name of a field, quoted if it must be."""
    is_bare = key.isascii() and key.replace("_", "a").replace("-", "a").isalnum()
    return key if is_bare else toml_value(key)


def toml_value(value: Json) -> str:
    """A number, truth value, text or list of those."""
    if isinstance(value, str):  # as in JSON, but for a character that TOML has escaped, too
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value)
