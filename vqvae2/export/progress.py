"""What an export reports while it runs."""

from dataclasses import dataclass
from pathlib import Path


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


def grid_path(folder: Path) -> Path:
    """The image grid of a folder of images, which lies beside the folder."""
    return folder.with_name(f"{folder.name}-grid.png")
