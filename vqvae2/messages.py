"""Short texts for people: counts, durations, similar names, errors in one line."""

import difflib
import re
from collections.abc import Iterable, Sequence


def counted(number: int, one: str, many: str = "") -> str:
    """`1 image`, `2 images`, `no images`."""
    noun = one if number == 1 else many or f"{one}s"
    return f"{number:,} {noun}" if number else f"no {noun}"


def shortened(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, `a, b, c, ...`."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def duration(seconds: float) -> str:
    """Seconds in a readable unit: `42 s`, `3.5 min`, `2.1 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.1f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean ...?` where a known name is near, else the known names."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}."


def one_line(error: BaseException) -> str:
    """An error's message on a single line without a final stop, or its type if it has none."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return re.sub(r"<_io\.\S+ object at \w+>", "the file", text)


def printable(text: str) -> str:
    """The text without control characters other than line ends and tabs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError for a value that is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
