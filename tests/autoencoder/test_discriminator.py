"""The discriminator, its augmentation and its losses."""

import pytest
import torch
from builders import synthetic_images

from vqvae2.autoencoder.discriminator import (
    Discriminator,
    DiscriminatorConfig,
    augment,
    discriminator_loss,
    feature_distance,
    generator_loss,
    gradient_penalty,
)


def small_discriminator(**changes) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(DiscriminatorConfig(channels=8, **changes)).double()


def test_each_scale_classifies_patches_on_a_grid_of_half_the_side():
    outputs = small_discriminator()(synthetic_images(2, 32).double())
    assert [tuple(logits.shape) for logits in outputs.logits] == [
        (2, 1, 16, 16), (2, 1, 8, 8), (2, 1, 4, 4),
    ]  # fmt: skip
    assert [features.shape[1] for features in outputs.features] == [16, 32, 32]


def test_the_outputs_of_an_image_do_not_depend_on_its_batch():
    model, images = small_discriminator(), synthetic_images(4, 16).double()
    together, alone = model(images), model(images[2:3])
    for a, b in zip(together.logits, alone.logits, strict=True):
        torch.testing.assert_close(a[2:3], b)


def test_the_two_losses_pull_in_opposite_directions():
    good, bad = [torch.full((2, 1, 3, 3), 3.0)], [torch.full((2, 1, 3, 3), -3.0)]
    assert generator_loss(good) < generator_loss(bad)
    assert discriminator_loss(good, bad) < discriminator_loss(bad, good)
    zero = [torch.zeros(2, 1, 3, 3)]
    assert discriminator_loss(zero, zero) == pytest.approx(2 * torch.log(torch.tensor(2.0)))


def test_the_gradient_penalty_equals_the_gradient_by_differences():
    model = small_discriminator(num_scales=1).requires_grad_(False)
    images = synthetic_images(1, 4).double().requires_grad_()

    def mean_logit(x):
        return float(torch.stack([scale.mean() for scale in model(x).logits]).sum())

    squares = 0.0
    for index in range(images.numel()):
        shift = torch.zeros_like(images).flatten()
        shift[index] = 1e-5
        shift = shift.view_as(images)
        difference = mean_logit(images.detach() + shift) - mean_logit(images.detach() - shift)
        squares += (difference / 2e-5) ** 2
    model.requires_grad_(True)
    penalty = gradient_penalty(images, model(images).logits)
    assert penalty.item() == pytest.approx(squares / 2, rel=1e-4)
    penalty.backward()
    assert model.first.weight.grad.abs().sum() > 0, "it trains the discriminator"


def test_feature_distance_sends_gradients_to_decoded_images_alone():
    real = torch.ones(1, 2, 2, 2, requires_grad=True)
    decoded = torch.zeros(1, 2, 2, 2, requires_grad=True)
    distance = feature_distance([real], [decoded])
    distance.backward()
    assert distance.item() == 1
    assert real.grad is None
    assert decoded.grad is not None


def test_augmentation_is_differentiable_and_equal_for_equal_noise():
    images = synthetic_images(3, 16).double().requires_grad_()
    noise = torch.rand(3, 5)
    one, other = augment(images, noise), augment(images, noise)
    assert torch.equal(one, other)
    one.sum().backward()
    # Every pixel that is shown counts once, the others not at all.
    assert set(images.grad.unique().tolist()) <= {0.0, 1.0}
    assert 0.4 < images.grad.mean() < 0.95
    assert not torch.equal(one, augment(images, torch.rand(3, 5)))


def test_augmentation_without_mirror_shift_or_hole_would_be_the_image():
    images = synthetic_images(2, 16)
    noise = torch.tensor([[0.9, 0.5, 0.5, 0.0, 0.0]] * 2)  # the hole lies in the first corner
    augmented = augment(images, noise)
    assert torch.equal(augmented[:, :, 4:, 4:], images[:, :, 4:, 4:])
    assert (augmented[:, :, :4, :4] == 0).all()
    mirrored = augment(images, torch.tensor([[0.1, 0.5, 0.5, 0.0, 0.0]] * 2))
    assert torch.equal(mirrored[:, :, 4:, 4:], images.flip(3)[:, :, 4:, 4:])


def test_a_width_that_its_norm_does_not_divide_is_one_clear_line():
    with pytest.raises(ValueError, match="channels must be a multiple of 8, got 12"):
        DiscriminatorConfig(channels=12)
