import struct
import warnings
import zlib

import numpy as np
import pytest
from builders import synthetic_images
from PIL import Image

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.imaging.uploads import UploadLimits, open_upload, upload_settings


@pytest.fixture
def picture():
    return to_pil(synthetic_images(1)[0])


def huge_png(path, width=10_000, height=10_000):
    """A valid PNG of 100 megapixels in 100 KB."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    # The pixels do not matter: they must not be read.
    rows = zlib.compress(bytes(height), 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_images_are_opened_upright_as_rgb(picture, tmp_path):
    picture.save(tmp_path / "image.png")
    image = open_upload(tmp_path / "image.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), np.asarray(picture))
    picture.convert("L").save(tmp_path / "grey.jpg")
    assert open_upload(tmp_path / "grey.jpg").mode == "RGB"


def test_a_small_file_with_very_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    path = huge_png(tmp_path / "huge.png")
    assert path.stat().st_size < 200_000
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # as in the app, where warnings are not errors
        with pytest.warns(Image.DecompressionBombWarning):
            with pytest.raises(ValueError, match=r"10000x10000 .* \(100 megapixels\); at most 40"):
                open_upload(path)
    with pytest.raises(ValueError, match="far too many pixels"):
        open_upload(path)
    with pytest.raises(ValueError, match="far too many pixels"):
        open_upload(huge_png(tmp_path / "giant.png", 40_000, 10_000))


def test_what_is_not_one_readable_image_is_one_clear_line(picture, tmp_path):
    text = tmp_path / "text.png"
    text.write_text("not an image")
    frames = [picture, picture.rotate(90)]
    moving, cut = tmp_path / "moving.gif", tmp_path / "cut.png"
    frames[0].save(moving, save_all=True, append_images=frames[1:])
    picture.save(cut)
    cut.write_bytes(cut.read_bytes()[:-100])
    (tmp_path / "empty.png").touch()
    cases = {
        text: "not an image that can be read",
        tmp_path / "empty.png": "not an image that can be read",
        moving: "The file has 2 frames",
        cut: "The image is damaged",
    }
    for path, message in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            open_upload(path)
        assert "\n" not in str(error.value)


def test_large_files_are_refused_unread(tmp_path):
    path = tmp_path / "large.png"
    path.write_bytes(bytes(2_000_000))
    with pytest.raises(ValueError, match=r"The file has 2 MB; at most 1 MB"):
        open_upload(path, UploadLimits(megabytes=1))
    with pytest.raises(ValueError, match=r"The file has 2 MB"):
        upload_settings(path, UploadLimits(megabytes=1))


def test_settings_come_from_files_of_this_package_only(picture, tmp_path):
    save_png(tmp_path / "mine.png", picture, {"class": "cat", "seed": 7})
    assert upload_settings(tmp_path / "mine.png") == {"class": "cat", "seed": 7}
    picture.save(tmp_path / "plain.png")
    save_png(tmp_path / "list.png", picture, [1, 2])
    (tmp_path / "text.png").write_text("text")
    for name, message in [
        ("plain.png", "no settings"),
        ("list.png", "no settings"),
        ("text.png", "not an image"),
    ]:
        with pytest.raises(ValueError, match=message):
            upload_settings(tmp_path / name)
