"""Frozen dataclasses as JSON and back, and files that are whole or not there.

Every JSON file begins with the name of its format and a version; what is not known is refused.
"""

import dataclasses
import difflib
import json
import os
import types
import typing
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

UNFINISHED = ".part"
"""Ending of a file that is being written."""


def to_dict(value: Any) -> Any:
    """A dataclass, with all inside it, as JSON types; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_dict(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple | list):
        return [to_dict(item) for item in value]
    return value


def from_dict(kind: type[T], data: Any, where: str = "config") -> T:
    """The value of type `kind` that `to_dict` turned into `data`.

    Raises:
        ValueError: a field is unknown, missing or of another type; `where` names it.
    """
    return typing.cast(T, _parse(kind, data, where))


def _parse(kind: Any, data: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _parse_dataclass(typing.cast(type, kind), data, where)
    if origin is tuple and isinstance(data, list):
        repeated = len(arguments) == 2 and arguments[1] is Ellipsis
        kinds = [arguments[0]] * len(data) if repeated else list(arguments)
        if len(kinds) == len(data):
            pairs = enumerate(zip(kinds, data, strict=True))
            return tuple(_parse(k, item, f"{where}[{i}]") for i, (k, item) in pairs)
    elif origin is typing.Literal and data in arguments:
        return data
    elif origin in (types.UnionType, typing.Union):
        chosen = [k for k in arguments if _fits(k, data) and _is_kind(k, data)]
        if chosen:
            return _parse(chosen[0], data, where)
        kinds = [name for k in arguments for name in _kinds(k)]
        if kinds and isinstance(data, Mapping):
            raise ValueError(
                f"{where}.kind must be one of {', '.join(kinds)}, got {data.get('kind')!r}."
            )
    elif _fits(kind, data):
        with suppress(OverflowError):  # of an integer that no float holds
            return float(data) if kind is float else data
    raise ValueError(f"{where} must be {getattr(kind, '__name__', kind)}, got {data!r}.")


def _parse_dataclass(kind: type, data: Any, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object ({kind.__name__}), got {data!r}.")
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ValueError(
            f"{where} has fields that {kind.__name__} does not know: {', '.join(unknown)}; "
            "it may come from a newer version."
        )
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(data))
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)} of {kind.__name__}.")
    parsed = {name: _parse(hints[name], item, f"{where}.{name}") for name, item in data.items()}
    return kind(**parsed)


def _fits(kind: Any, data: Any) -> bool:
    if kind is types.NoneType:
        return data is None
    if dataclasses.is_dataclass(kind):
        return isinstance(data, Mapping)
    if kind is float:
        return isinstance(data, int | float) and not isinstance(data, bool)
    if kind is int:
        return isinstance(data, int) and not isinstance(data, bool)
    return isinstance(kind, type) and isinstance(data, kind)


def _kinds(kind: Any) -> tuple[str, ...]:
    """What a dataclass's field `kind` may say: dataclasses in a union are told apart by it."""
    hint = typing.get_type_hints(kind).get("kind") if dataclasses.is_dataclass(kind) else None
    return typing.get_args(hint)


def _is_kind(kind: Any, data: Any) -> bool:
    kinds = _kinds(kind)
    return not kinds or (isinstance(data, Mapping) and data.get("kind") in kinds)


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What differs between two `to_dict` results, one line a field."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{where}.{key}".lstrip("."), old.get(key), new.get(key)) for key in keys]
        return [line for name, a, b in pairs for line in differences(a, b, name)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{where}.{i}", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
        return [line for name, a, b in pairs for line in differences(a, b, name)]
    return [] if old == new else [f"{where}: {old!r} before, {new!r} now"]


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` for a name that is not among `known`, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}."


class OtherVersion(ValueError):
    """A file is of another format or version."""


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file that is whole or not there: to a neighbour first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    neighbour = path.with_name(f".{path.name}.{os.getpid()}{UNFINISHED}")
    try:
        with neighbour.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        neighbour.replace(path)
    finally:
        neighbour.unlink(missing_ok=True)


def write_json(path: Path, name: str, version: int, content: Mapping[str, Any]) -> None:
    """Writes `content` under its format's name and version."""
    document = {"format": name, "version": version, **content}
    write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())


def read_json(path: Path, name: str, version: int) -> dict[str, Any]:
    """Reads what `write_json` wrote, or says in one line why not."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        message = f"{path} is not readable as JSON ({error}); restore or remove it."
        raise ValueError(message) from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} must hold {name} version {version}, got a {type(document)}.")
    found = (document.pop("format", None), document.pop("version", None))
    if found != (name, version):
        raise OtherVersion(
            f"{path} must hold {name} version {version}, got {found[0]} version {found[1]}."
        )
    return document


def cache_folder() -> Path:
    """Where fetched networks and features are kept: VQVAE2_CACHE, or a folder of the user's."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("VQVAE2_CACHE") or f"{base}/vqvae2")
