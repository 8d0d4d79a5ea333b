"""The perceptual distance."""

import torch
from builders import synthetic_images
from torch import nn

from vqvae2.autoencoder.perceptual import LOGIT_WEIGHT, PerceptualDistance
from vqvae2.metrics.classifier import ResNet, ResNetMaps


def distance() -> PerceptualDistance:
    torch.manual_seed(0)
    return PerceptualDistance(ResNetMaps(ResNet(3, 8, 16)).double())


def test_the_distance_is_zero_for_equal_images_alone():
    images = synthetic_images(4).double()
    assert torch.equal(distance()(images, images), torch.zeros(4))
    assert (distance()(images, images.flip(0)) > 0).all()


def test_gradients_reach_the_second_images_and_not_the_network():
    model, images = distance(), synthetic_images(2).double()
    others = images.roll(1, dims=3).requires_grad_()
    model(images.requires_grad_(), others).sum().backward()
    assert images.grad is None
    assert others.grad.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


def test_the_network_stays_in_eval_mode():
    model = distance().train()
    assert not any(module.training for module in model.network.modules())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(synthetic_images(2).double(), synthetic_images(2, first=5).double())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Outputs(nn.Module):
    def forward(self, images):
        return [images, images.flatten(1)]


def test_maps_count_by_their_direction_and_logits_by_their_values():
    one = torch.zeros(1, 2, 1, 1).index_fill(1, torch.tensor(0), 1.0)
    other = torch.zeros(1, 2, 1, 1).index_fill(1, torch.tensor(1), 3.0)
    found = PerceptualDistance(Outputs())(one, other)
    # Orthogonal directions are sqrt(2) apart; the logits differ by 1 and 3.
    expected = (2 + LOGIT_WEIGHT * (1 + 9) / 2) / 2
    torch.testing.assert_close(found, torch.tensor([expected]))
