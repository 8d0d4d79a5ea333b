"""Frozen dataclasses to JSON values and back.

The annotation of a field decides how its value is read: numbers, strings, tuples, literals,
optional values, dictionaries and other dataclasses. Where several dataclasses may stand (a union,
or the subclasses of an abstract class), each has a field `kind` that names it.

The annotation of a number also declares its range, `Annotated[float, Interval("[0, 1)")]`, which
`require_ranges` validates.
"""

import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Annotated, TypeAlias, TypeVar

T = TypeVar("T")

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""A value that JSON can hold."""

JsonObject: TypeAlias = dict[str, Json]

Hint: TypeAlias = object
"""What may annotate a field: a type, a union, `tuple[int, ...]`, ..."""


def to_dict(value: object) -> JsonObject:
    """A dataclass, with everything in it, as a JSON object; tuples become lists."""
    result = to_json(value)
    assert isinstance(result, dict), value
    return result


def to_json(value: object) -> Json:
    """A dataclass, sequence, mapping or plain value as JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return {field.name: to_json(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    assert value is None or isinstance(value, bool | int | float | str), value
    return value


def from_dict(kind: type[T], data: object, where: str = "config") -> T:
    """The value of type `kind` that `to_dict` turned into `data`.

    Arguments:
        kind: a dataclass, or an abstract class whose subclasses are dataclasses with a `kind`.
        data: a JSON object.
        where: what messages call it.

    Raises:
        ValueError: a field is unknown, missing or of another type.
    """
    return typing.cast(T, _parse(kind, data, where))


def _parse(hint: Hint, data: object, where: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if inspect.isabstract(hint):
        return _parse_alternative(_subclasses(hint), data, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _parse_dataclass(hint, data, where)
    if origin is tuple and isinstance(data, list):
        return _parse_tuple(arguments, data, where)
    if origin in (dict, Mapping) and isinstance(data, Mapping):
        return {str(key): _parse(arguments[1], v, f"{where}.{key}") for key, v in data.items()}
    if origin in (types.UnionType, typing.Union):
        return _parse_alternative(arguments, data, where)
    if _fits(hint, data):
        with suppress(OverflowError):  # of an integer that no float holds
            return float(data) if hint is float else data  # type: ignore[arg-type]
    raise ValueError(f"{where} must be {_name(hint)}, got {data!r}.")


def _parse_tuple(hints: Sequence[Hint], data: list[object], where: str) -> tuple[object, ...]:
    repeated = len(hints) == 2 and hints[1] is Ellipsis
    each = [hints[0]] * len(data) if repeated else list(hints)
    if len(each) != len(data):
        raise ValueError(f"{where} must have {len(each)} values, got {data!r}.")
    pairs = enumerate(zip(each, data, strict=True))
    return tuple(_parse(hint, item, f"{where}.{i}") for i, (hint, item) in pairs)


def _parse_alternative(hints: Sequence[Hint], data: object, where: str) -> object:
    """The first of several types that fits; dataclasses are told apart by their `kind`."""
    kinds = [name for hint in hints for name in _kinds(hint)]
    named = data.get("kind") if isinstance(data, Mapping) else None
    for hint in hints:
        if _fits(hint, data) and (not _kinds(hint) or named in _kinds(hint)):
            return _parse(hint, data, where)
    if kinds and isinstance(data, Mapping):
        raise ValueError(f"{where}.kind must be one of {', '.join(kinds)}, got {named!r}.")
    raise ValueError(f"{where} must be {' or '.join(map(_name, hints))}, got {data!r}.")


def _parse_dataclass(kind: type, data: object, where: str) -> object:
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object ({kind.__name__}), got {data!r}.")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise ValueError(
            f"{where} has fields that {kind.__name__} does not have: {', '.join(unknown)}; "
            "it may come from a newer version."
        )
    missing = sorted(name for name in set(fields) - set(data) if _is_required(fields[name]))
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)} of {kind.__name__}.")
    return kind(**{name: _parse(hints[name], v, f"{where}.{name}") for name, v in data.items()})


def _is_required(field: "dataclasses.Field[object]") -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _fits(hint: Hint, data: object) -> bool:
    """Whether the JSON type of `data` is the one that `hint` is read from."""
    origin = typing.get_origin(hint)
    if hint is types.NoneType:
        return data is None
    if dataclasses.is_dataclass(hint) or inspect.isabstract(hint) or origin in (dict, Mapping):
        return isinstance(data, Mapping)
    if origin is tuple:
        return isinstance(data, list)
    if origin is typing.Literal:
        return any(data == a and type(data) is type(a) for a in typing.get_args(hint))
    if hint is float:
        return isinstance(data, int | float) and not isinstance(data, bool)
    if hint is int:
        return isinstance(data, int) and not isinstance(data, bool)
    return isinstance(hint, type) and isinstance(data, hint)


def _subclasses(kind: object) -> list[type]:
    """The final classes below an abstract one."""
    assert isinstance(kind, type)
    below: list[type] = kind.__subclasses__()
    return [final for sub in below for final in (_subclasses(sub) or [sub])]


def _kinds(hint: Hint) -> tuple[str, ...]:
    """The values that the field `kind` of a dataclass may have; () without such a field."""
    if not (dataclasses.is_dataclass(hint) and isinstance(hint, type)):
        return ()
    return typing.get_args(typing.get_type_hints(hint).get("kind"))


def _name(hint: Hint) -> str:
    """What messages call a type."""
    if hint is types.NoneType:
        return "null"
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(hint))
    return getattr(hint, "__name__", str(hint))


class Interval:
    """The range of a number, in the annotation of its field.

    Arguments:
        notation: "[0, 1)" contains 0 and not 1; "[1, inf)" is finite, "(0, inf]" may be infinite.
        hint: for the message about a number outside.
    """

    def __init__(self, notation: str, hint: str = "") -> None:
        self.notation, self.hint = notation, hint
        self.least, self.most = (float(number) for number in notation[1:-1].split(","))

    def __contains__(self, value: float) -> bool:
        above = value >= self.least if self.notation[0] == "[" else value > self.least
        below = value <= self.most if self.notation[-1] == "]" else value < self.most
        return above and below

    def __str__(self) -> str:
        if self.most < math.inf:
            return f"in {self.notation}"
        if self.least == -math.inf:
            return "finite"
        return f"{'at least' if self.notation[0] == '[' else 'above'} {self.least:g}"


AtLeast0 = Annotated[int, Interval("[0, inf)")]
AtLeast1 = Annotated[int, Interval("[1, inf)")]
Fraction = Annotated[float, Interval("[0, 1]")]
Probability = Annotated[float, Interval("[0, 1)")]


def declared_intervals(kind: type) -> dict[str, Interval]:
    """The range of each field of a dataclass that declares one; None is in every range."""
    intervals = {}
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        for part in (hint, *typing.get_args(hint)):
            declared = [i for i in getattr(part, "__metadata__", ()) if isinstance(i, Interval)]
            if declared:
                intervals[name] = declared[0]
    return intervals


def require_ranges(owner: str, config: object) -> None:
    """Raises ValueError for a number outside of the range that its field declares.

    Arguments:
        owner: what the message begins with, such as "A prior's " or "levels.0."; may be empty.
        config: a dataclass.
    """
    for name, interval in declared_intervals(type(config)).items():
        value = getattr(config, name)
        if value is not None and value not in interval:
            hint = f"; {interval.hint}" if interval.hint else ""
            raise ValueError(f"{owner}{name} must be {interval}, got {value}{hint}.")


def differences(old: Json, new: Json, where: str = "") -> list[str]:
    """The differences between two results of `to_dict`, one line per field."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(f"{where}.{key}".lstrip("."), old.get(key), new.get(key)) for key in keys]
        return [line for name, a, b in pairs for line in differences(a, b, name)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{where}.{i}", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
        return [line for name, a, b in pairs for line in differences(a, b, name)]
    if isinstance(old, list) and isinstance(new, list):
        return [f"{where}: {len(old)} entries before, {len(new)} now"]
    return [] if old == new else [f"{where}: {old!r} before, {new!r} now"]


def per_level(name: str, given: T | Sequence[T], num_levels: int) -> list[T]:
    """What a user gives for all levels, one value or one per level, as one per level.

    Raises:
        ValueError: another number of values; the message calls them `name`.
    """
    is_one = not isinstance(given, list | tuple)
    values: list[T] = [typing.cast(T, given)] if is_one else list(typing.cast(Sequence[T], given))
    if len(values) not in (1, num_levels):
        raise ValueError(
            f"{name} takes one value, or one for each of the {num_levels} levels, got "
            f"{len(values)}."
        )
    return values if len(values) == num_levels else values * num_levels
