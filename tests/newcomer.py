"""A place in which the scripts and pages for newcomers run: a folder of images, a trained run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from builders import synthetic_images
from small_runs import small_run

from vqvae2 import fit
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.runs.config import RunConfig

SHORTER = [
    ('"photos", hours=1,', '"photos", SHORT,'),
    ("range(2000)", "range(3)"),
    ('images64("photos")', "SHORT"),
]
"""What an hour of training becomes in a test; everything else runs as it is written."""


def in_seconds(code: str) -> str:
    """The code with a training of seconds."""
    for long, short in SHORTER:
        code = code.replace(long, short)
    assert "hours=" not in code
    return code


def short_run() -> RunConfig:
    """Steps of training, with the label dropout that guidance needs."""
    run = small_run()
    return replace(run, levels=tuple(replace(level, label_dropout=0.1) for level in run.levels))


def run_code(code: str, names: dict[str, object]) -> None:
    """Runs code in the current folder, with the config of a short run as SHORT."""
    names["SHORT"] = short_run()
    exec(compile(in_seconds(code), "<page>", "exec"), names)


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """The current folder of a block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_place(folder: Path) -> None:
    """A folder `photos` of two classes, an image, and the run that was trained on them."""
    for number, image in enumerate(synthetic_images(48, size=24)):
        name = f"{('cat', 'dog')[number % 2]}/{number:03d}.png"
        save_png(folder / "photos" / name, to_pil(image))
    save_png(folder / "cat.png", to_pil(synthetic_images(1, size=40)[0]))
    with inside(folder):
        fit("photos", short_run(), run="runs/photos")
