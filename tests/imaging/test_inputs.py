"""Whatever people hold as images becomes one batch, or is refused in one line."""

import numpy as np
import pytest
import torch
from noise_images import noise_tensor
from PIL import Image

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.inputs import as_batch

PIXELS = noise_tensor([0])  # (1, 3, 16, 16) uint8
FLOATS = PIXELS.float() / 255


@pytest.mark.parametrize(
    "images",
    [
        PIXELS,
        PIXELS[0],
        FLOATS,
        FLOATS[0],
        FLOATS.double(),
        PIXELS[0].movedim(0, -1).numpy(),
        PIXELS.movedim(1, -1).numpy(),
        FLOATS[0].movedim(0, -1).numpy(),
        to_pil(PIXELS[0]),
        [to_pil(PIXELS[0])],
        (PIXELS[0],),
    ],
)
def test_every_form_of_an_image_is_the_same_batch(images):
    batch = as_batch(images, channels=3, size=16)
    assert batch.shape == (1, 3, 16, 16)
    assert torch.allclose(batch.double(), FLOATS.double(), atol=1e-7)
    assert batch.is_floating_point()


def test_a_list_may_mix_forms_and_batches():
    batch = as_batch([PIXELS, FLOATS[0], to_pil(PIXELS[0])], channels=3, size=16)
    assert torch.allclose(batch, FLOATS.expand(3, -1, -1, -1), atol=1e-7)


def test_a_pillow_image_becomes_the_central_square_of_the_models_size():
    wide = Image.new("RGB", (64, 32), "red")
    wide.paste("blue", (16, 0, 48, 32))
    batch = as_batch(wide, channels=3, size=8)
    assert batch.shape == (1, 3, 8, 8)
    assert torch.equal(batch[0, :, 4, 4], torch.tensor([0.0, 0.0, 1.0]))


def test_images_of_one_channel():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = torch.from_numpy(grey)[None, None].float() / 255
    assert torch.equal(as_batch(grey, channels=1, size=16), expected)
    assert torch.equal(as_batch(Image.fromarray(grey), channels=1, size=16), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (255 * FLOATS, r"must lie in \[0, 1\], got .* to 255; scale them"),
        (FLOATS - 0.5, r"must lie in \[0, 1\], got -0.5"),
        (FLOATS * float("nan"), r"must lie in \[0, 1\], got nan"),
        (FLOATS[:, :1], r"shape \(3, H, W\) or \(B, 3, H, W\), got \(1, 1, 16, 16\)"),
        (FLOATS[0, 0], r"got \(16, 16\)"),
        (FLOATS.movedim(1, -1), "tensors have their channels first"),
        (PIXELS[0].numpy(), "NumPy arrays have their channels last"),
        (
            PIXELS.long(),
            "must be uint8 from 0 to 255 or floating point from 0 to 1, got torch.int",
        ),
        ([], "at least one image"),
        ([FLOATS, FLOATS[..., :8]], "equal sides, got 16x8 and 16x16"),
        ("cat.png", "got str; open a file with PIL.Image.open"),
    ],
)
def test_what_cannot_be_images_is_one_line(images, message):
    with pytest.raises(ValueError, match=message) as error:
        as_batch(images, channels=3, size=16)
    assert "\n" not in str(error.value)


def test_a_little_overshoot_is_no_mistake():
    assert as_batch(FLOATS + 5e-4, channels=3, size=16).shape == (1, 3, 16, 16)
