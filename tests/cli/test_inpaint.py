import subprocess
import sys
from pathlib import Path

import pytest
from commands import error_of
from PIL import Image

from vqvae2.cli.main import run
from vqvae2.imaging.png import read_settings


@pytest.fixture
def images(trained, tmp_path) -> Path:
    """Three images of the class class1, in a sub-folder of that name."""
    folder = tmp_path / "images" / "class1"
    folder.mkdir(parents=True)
    for path in sorted((trained.parent / "data" / "class1").iterdir())[:3]:
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_images_are_completed_and_varied(trained, images, tmp_path, capsys):
    command = ["inpaint", str(trained), str(images.parent), "--count", "2", "--out"]
    assert run([*command, str(tmp_path / "half")]) == 0
    assert "6 images in" in capsys.readouterr().out
    assert run([*command, str(tmp_path / "other"), "--keep-levels", "1", "--batch", "3"]) == 0
    for name in ("half", "other"):
        assert len(list((tmp_path / name).rglob("*.png"))) == 6
        assert (tmp_path / f"{name}-grid.png").is_file()
    boxes = {
        name: read_settings(next((tmp_path / name).rglob("*-00001.png")))["box"]
        for name in ("half", "other")
    }
    assert boxes == {"half": [0, 0.5, 1, 1], "other": [0, 0, 1, 1]}


def test_the_class_must_be_known(trained, images, capsys):
    command = ["inpaint", trained, images]
    assert "in no sub-folder with the name of a class" in error_of(capsys, *command)
    assert "Unknown class 'x'" in error_of(capsys, *command, "--class", "x")


def test_boxes_and_levels_that_do_not_exist_are_one_line(trained, images, capsys):
    command = ["inpaint", trained, images, "--class", "class0"]
    assert "a box is left, top" in error_of(capsys, *command, "--box", "0", "0", "2", "1").lower()
    assert "got 2 numbers" in error_of(capsys, *command, "--box", "0", "0")
    assert "keep_levels must be in [0, 2)" in error_of(capsys, *command, "--keep-levels", "2")


def test_the_example_draws_completions_and_variations_in_one_grid(trained, tmp_path):
    script = Path(__file__).parent.parent.parent / "examples" / "inpainting_grid.py"
    out = tmp_path / "grid.png"
    options = ["--images", "3", "--versions", "2", "--out", str(out)]
    subprocess.run([sys.executable, str(script), str(trained), *options], check=True)
    with Image.open(out) as grid:
        assert grid.size[0] > 7 * 96
