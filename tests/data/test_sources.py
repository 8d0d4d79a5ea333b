"""Sources that do not exist are refused with one line and a remedy."""

from pathlib import Path

import pytest
from noise_images import config, save

from vqvae2.data.images import load_images, open_images


def test_a_missing_path_is_refused_with_a_similar_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"no folder or file .*imagse; did you mean .*images"):
        open_images(config(tmp_path / "imagse"))
    with pytest.raises(ValueError, match="nowhere is no folder; check the path"):
        open_images(config(tmp_path / "nowhere" / "a"))


def test_a_single_image_is_no_source(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"Expected a folder of images.* gives \.png files"):
        open_images(config(file))
    assert load_images(file, 8).names == ["a.png"]


def test_a_glob_without_matches_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No file matches .*\*\.tar"):
        open_images(config(f"{tmp_path}/*.tar"))
