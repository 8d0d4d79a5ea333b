"""Text that may come from strangers, made fit for a terminal."""

import re


def visible(text: str) -> str:
    """A text without control characters other than line ends and tabs."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\N{REPLACEMENT CHARACTER}", text)
