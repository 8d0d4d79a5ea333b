"""The built-in images: a pure function of (seed, index), with the factors they name."""

import pytest
import torch

from vqvae2.data.synthetic import CLASS_NAMES, SHAPES, TEXTURES, SyntheticBatch, labels_of, render


def test_an_image_depends_on_seed_and_index_alone() -> None:
    batch = render(range(600), 24, seed=3)
    for chosen in ([5], [599, 0, 5], torch.tensor([77, 77, 12, 310])):
        again = render(chosen, 24, seed=3)
        index = torch.as_tensor(chosen)
        assert torch.equal(again.images, batch.images[index])
        assert torch.equal(again.labels, batch.labels[index])
        assert torch.equal(again.factors.hue, batch.factors.hue[index])


def test_another_seed_gives_other_images() -> None:
    first, second = render(range(48), 16, seed=0), render(range(48), 16, seed=1)
    assert (first.images != second.images).flatten(1).any(1).all()
    assert not torch.equal(first.labels, second.labels)


def test_images_of_one_seed_differ() -> None:
    images = render(range(200), 16, seed=0).images.flatten(1)
    assert len(torch.unique(images, dim=0)) == 200


def test_every_twelve_images_have_each_class_once() -> None:
    labels = render(range(12 * 50), 4, seed=7).labels.reshape(50, 12)
    assert (labels.sort(1).values == torch.arange(12)).all()
    assert len(torch.unique(labels, dim=0)) > 5, "the order of classes varies"


def test_labels_name_the_factors() -> None:
    batch = render(range(60), 8, seed=2)
    assert torch.equal(batch.labels, labels_of(range(60), seed=2))
    for label, shape, texture in zip(
        batch.labels, batch.factors.shape_id, batch.factors.texture_id, strict=True
    ):
        assert CLASS_NAMES[label] == f"{TEXTURES[texture]}-{SHAPES[shape]}"


@pytest.mark.parametrize("size", [1, 7, 32, 65])
def test_any_size_is_rendered(size: int) -> None:
    images = render(range(3), size, seed=0).images
    assert images.shape == (3, 3, size, size)
    assert images.dtype == torch.uint8


def test_a_smaller_image_is_the_larger_one_averaged() -> None:
    small = render(range(36), 32, seed=0).images.float()
    large = render(range(36), 128, seed=0).images.float()
    averaged = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - averaged).abs().mean() < 3, "edges are blended"


def test_the_image_has_its_factors() -> None:
    """The centre of a plain disc has the hue of the object."""
    batch = render(range(240), 32, seed=1)
    factors = batch.factors
    plain_discs = (batch.labels == CLASS_NAMES.index("plain-disc")).nonzero().flatten()
    for index in plain_discs.tolist():
        column = int((factors.x[index] + 1) * 16)
        row = int((factors.y[index] + 1) * 16)
        assert hue(batch.images[index, :, row, column]) == pytest.approx(
            float(factors.hue[index]), abs=0.02
        )


def hue(pixel: torch.Tensor) -> float:
    import colorsys

    return colorsys.rgb_to_hsv(*(pixel.float() / 255).tolist())[0]


def test_textures_have_strong_contrast_at_32_pixels() -> None:
    """Brightness varies inside textured objects and not inside plain ones."""
    batch = render(range(120), 32, seed=0)
    contrasts = torch.tensor([float(inner_square(batch, i).std()) for i in range(120)])
    plain, striped, checked = (contrasts[batch.factors.texture_id == t] for t in range(3))
    assert plain.max() < 30
    assert min(striped.min(), checked.min()) > 35


def inner_square(batch: SyntheticBatch, index: int) -> torch.Tensor:
    column, row = (int((place[index] + 1) * 16) for place in (batch.factors.x, batch.factors.y))
    window = batch.images[index, :, row - 4 : row + 5, column - 4 : column + 5]
    return window.float().max(0).values


def test_the_object_covers_much_of_the_image() -> None:
    scale = render(range(240), 1, seed=0).factors.scale
    assert scale.min() >= 0.5
    assert scale.max() <= 0.75


def test_the_object_is_inside_the_image() -> None:
    images = render(range(1200), 64, seed=0).images.float()
    border = torch.cat([images[..., 0], images[..., -1], images[..., 0, :], images[..., -1, :]], 2)
    high, low = border.max(1).values, border.min(1).values
    # The background's saturation is 0.45 under any light, the object's 0.75 or more.
    assert ((high - low) / high).max() < 0.5


def test_no_images_are_an_empty_batch() -> None:
    assert render([], 8, seed=0).images.shape == (0, 3, 8, 8)


def test_invalid_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        render([0], 0, seed=0)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        render([-1], 8, seed=0)
