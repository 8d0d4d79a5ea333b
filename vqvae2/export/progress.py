"""What an export reports while it runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class ExportProgress:
    """How far an export is.

    Arguments:
        done: Number of images processed so far.
        total: Number of images to process.
        paths: Files written since the previous report.
        mse: Of the reconstructions so far, images in [0, 1]; None in other exports.
    """

    done: int
    total: int
    paths: tuple[Path, ...] = ()
    mse: float | None = None


def png_names(names: Sequence[str]) -> list[str]:
    """Names for the PNG files of images: without their suffix, unless two would be equal then."""
    stems = [str(PurePosixPath(name).with_suffix("")) for name in names]
    uses = Counter(stems)
    return [stem if uses[stem] == 1 else name for stem, name in zip(stems, names, strict=True)]


def grid_path(folder: Path) -> Path:
    """The image grid of a folder of images, which lies beside the folder."""
    return folder.with_name(f"{folder.name}-grid.png")


def grid_text(folder: Path, num_shown: int, total: int) -> str:
    """The image grid of a folder in a message, and how many of its images it shows."""
    part = f" of {num_shown:,} of them" if num_shown < total else ""
    return f"image grid{part}: {grid_path(folder)}"
