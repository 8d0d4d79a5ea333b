"""Exports of images: their progress, and images of earlier calls in the same folder."""

from collections.abc import Iterable
from pathlib import Path

from vqvae2.cli.display import Monitor, console
from vqvae2.export.progress import ExportProgress
from vqvae2.messages import counted


def track_export(
    view: Monitor, title: str, folder: Path, reports: Iterable[ExportProgress]
) -> ExportProgress:
    """Shows an export until it ends, and prints a line if its folder has other images, too.

    Arguments:
        view: where the progress is shown.
        title: of the activity.
        folder: where the images are written.
        reports: of the export.

    Returns:
        The last report.
    """
    before = set(folder.rglob("*.png")) if folder.is_dir() else set()
    last = ExportProgress(0, 0)
    for last in reports:
        before -= set(last.paths)
        view.track(title, last.done, last.total)
    if before:
        console.print(
            f"{folder} also has {counted(len(before), 'image')} of earlier calls; give another "
            "--out to keep sets of images apart.",
            style="yellow",
        )
    return last
