"""Decoding: every image file becomes a square of uint8 RGB."""

import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_images import encoded, noise, save
from PIL import Image

from vqvae2.data.decode import UnusableImage, decode_image, decode_upright


def test_an_image_of_the_right_size_is_decoded_exactly(tmp_path: Path) -> None:
    values = noise(16)
    decoded = decode_image(save(tmp_path / "a.png"), 16)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, torch.from_numpy(values).permute(2, 0, 1))
    assert torch.equal(decode_image((tmp_path / "a.png").read_bytes(), 16), decoded)


def test_a_wide_image_loses_only_its_sides() -> None:
    values = np.concatenate([noise(16, 1), noise(16, 2), noise(16, 3)], axis=1)
    decoded = decode_image(encoded(Image.fromarray(values)), 16)
    assert torch.equal(decoded, torch.from_numpy(noise(16, 2)).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "I", "F", "I;16"])
def test_white_is_white_and_black_is_black_in_every_mode(mode: str) -> None:
    bright = {"I": 65_535, "F": 1.0, "I;16": 65_535}.get(mode)
    for value, grey in ((bright, 255), (0, 0)) if bright else ((None, 255),):
        image = (
            Image.new("RGB", (8, 8), "white").convert(mode)
            if value is None
            else Image.new(mode, (8, 8), value)
        )
        decoded = decode_image(encoded(image, "TIFF"), 8)
        assert decoded.shape == (3, 8, 8)
        assert (decoded == grey).all(), mode


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.tile(np.arange(0, 65_536, 4096, dtype=np.uint16), (16, 1))
    decoded = decode_image(encoded(Image.fromarray(ramp), kind), 16)
    assert decoded[0, 0].tolist() == np.rint(ramp[0] / 257).astype(int).tolist()


@pytest.mark.parametrize("white", [1.0, 255.0, 65_535.0])
def test_float_grey_is_scaled_by_the_range_it_fits(white: float) -> None:
    ramp = np.tile(np.linspace(0, white, 16, dtype=np.float32), (16, 1))
    decoded = decode_image(encoded(Image.fromarray(ramp), "TIFF"), 16)
    assert decoded[0, 0].tolist() == np.rint(np.linspace(0, 255, 16)).astype(int).tolist()


def test_transparency_becomes_white() -> None:
    for mode, clear, half in (("RGBA", (255, 0, 0, 0), (0, 0, 0, 128)), ("LA", (0, 0), (0, 128))):
        assert (decode_image(encoded(Image.new(mode, (8, 8), clear)), 8) == 255).all()
        grey = decode_image(encoded(Image.new(mode, (8, 8), half)), 8)
        assert (grey.int() - 127).abs().max() <= 1


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    assert decode_image(encoded(image), 8)[:, 0, 0].tolist() == [200, 10, 10]
    assert (decode_image(encoded(image, transparency=1), 8) == 255).all()
    # Some files store one opacity per colour of the palette, about which Pillow warns.
    assert (decode_image(encoded(image, transparency=b"\xff\x00"), 8) == 255).all()
    assert (decode_image(encoded(image, "GIF", transparency=1), 8) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    upright = Image.fromarray(noise(16)).resize((16, 24))
    turns = ["", "", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"]
    turns += ["TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    turn = turns[orientation]
    stored = upright.transpose(Image.Transpose[turn]) if turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_upright(encoded(stored, exif=exif), 1)
    assert decoded.size == (16, 24)
    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


def test_a_fine_checkerboard_shrinks_to_flat_grey() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    for size in (16, 24, 100):
        inner = decode_image(encoded(Image.fromarray(board)), size)[:, 2:-2, 2:-2]
        assert (inner.int() - 127).abs().max() <= 2, size


def test_a_large_jpeg_shrinks_like_its_average() -> None:
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
    decoded = decode_image(encoded(Image.fromarray(ramp), "JPEG", quality=95), 16)
    expected = torch.from_numpy(ramp).float().reshape(16, 32, 16, 32).mean((1, 3))
    assert (decoded[0] - expected)[1:-1, 1:-1].abs().max() < 3


def test_an_image_grows_at_most_twofold() -> None:
    assert decode_image(encoded(Image.new("RGB", (8, 9))), 16).shape == (3, 16, 16)
    with pytest.raises(UnusableImage, match="short side of 7 pixels is below half of 16"):
        decode_image(encoded(Image.new("RGB", (7, 90))), 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_image_is_unusable(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64)), kind)
    for length in (0, 3, 20, len(data) // 2):
        with pytest.raises(UnusableImage, match=r"."):
            decode_image(data[:length], 16)


def test_a_decompression_bomb_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # only a warning: still readable
    assert decode_image(data, 64).shape == (3, 64, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnusableImage, match="decompression bomb"):
        decode_image(data, 16)


def test_damaged_exif_does_not_hide_a_readable_image() -> None:
    data = encoded(Image.fromarray(noise(16)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12")
    assert decode_image(data, 16).shape == (3, 16, 16)


def test_an_upright_image_keeps_its_size() -> None:
    full = decode_upright(encoded(Image.new("CMYK", (37, 5)), "TIFF"), 1)
    assert (full.mode, full.size) == ("RGB", (37, 5))


def test_decoding_in_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = encoded(Image.fromarray(noise(16)))
    threads = [
        threading.Thread(target=lambda: [decode_image(data, 16) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before
