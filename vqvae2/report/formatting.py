"""Numbers and settings as the report and the command line print them."""

from markupsafe import Markup, escape

from vqvae2.metrics.describe import DASH
from vqvae2.sampling import SamplingConfig


def format_number(value: object, digits: int = 4) -> str:
    """A number with a few significant digits: 0.004812, 22.35, 12,345; other values as text."""
    if value is None:
        return DASH
    if isinstance(value, list | tuple):
        return ", ".join(format_number(item, digits) for item in value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if value == value and abs(value) < 1e15 and value == int(value):
        return f"{int(value):,}"
    if 10**digits <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def with_code(text: str) -> Markup:
    """A sentence as HTML, with `commands` in a fixed-width font."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def describe_sampling(config: SamplingConfig) -> str:
    """How codes are drawn, in words."""
    parts = [f"temperature {config.temperature:g}"]
    if config.top_k is not None:
        parts.append(f"top-k {config.top_k}")
    if config.top_p != 1:
        parts.append(f"top-p {config.top_p:g}")
    if len(parts) == 1 and config.temperature:
        parts.append("all codes")
    return ", ".join(parts)
