import math

import numpy as np
import pytest
import torch
from torch import Tensor

from vqvae2.priors.likelihood import Categorical, LogisticMixture
from vqvae2.sampling import SamplingConfig, sample_codes


def mixture(channels: int, num_values: int = 16, batch: int = 5) -> tuple[LogisticMixture, Tensor]:
    torch.manual_seed(0)
    likelihood = LogisticMixture(3, channels, num_values)
    return likelihood, torch.randn(batch, likelihood.num_params, dtype=torch.float64)


def test_log_prob_is_cross_entropy():
    params, codes = torch.randn(2, 5, 3, 3).double(), torch.randint(0, 5, (2, 3, 3))
    expected = params.log_softmax(dim=1).gather(1, codes[:, None])[:, 0]
    torch.testing.assert_close(Categorical.log_prob(params, codes), expected)


def test_a_mixture_over_rgb_has_ten_parameters_per_component():
    assert LogisticMixture(10, 3).num_params == 100


def reference(params: np.ndarray, pixel: np.ndarray, num_values: int) -> float:
    """log p(pixel) of a mixture over RGB: Eq. 2 and 3 of PixelCNN++, in NumPy."""
    table = params.reshape(10, -1)
    weights = np.exp(table[0]) / np.exp(table[0]).sum()
    means, scales, slopes = table[1:4].copy(), np.exp(table[4:7]), np.tanh(table[7:10])
    x = pixel / (num_values - 1) * 2 - 1
    means[1] += slopes[0] * x[0]
    means[2] += slopes[1] * x[0] + slopes[2] * x[1]
    half, total = 1 / (num_values - 1), weights

    def cdf(edge: float, channel: int) -> np.ndarray:
        return 1 / (1 + np.exp(-(edge - means[channel]) / scales[channel]))

    for channel in range(3):
        low = 0.0 if pixel[channel] == 0 else cdf(x[channel] - half, channel)
        high = 1.0 if pixel[channel] == num_values - 1 else cdf(x[channel] + half, channel)
        total = total * (high - low)
    return math.log(total.sum())


def test_mixture_matches_the_formulas_of_pixelcnnpp():
    likelihood, params = mixture(3, batch=8)
    pixels = torch.randint(0, 16, (8, 3))
    pixels[0], pixels[1] = 0, 15
    nats = likelihood.log_prob(params[:, :, None, None], pixels[:, None, None]).sum(dim=(1, 2, 3))
    expected = [reference(p.numpy(), v.numpy(), 16) for p, v in zip(params, pixels, strict=True)]
    torch.testing.assert_close(nats, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_of_each_channel_given_the_earlier_ones_match_log_prob(channels):
    likelihood, params = mixture(channels)
    values = torch.randint(0, 16, (5, 1, 1, channels))
    nats = likelihood.log_prob(params[:, :, None, None], values)[:, 0, 0]
    pixel = list(values[:, 0, 0].unbind(-1))
    for channel, value in enumerate(pixel):
        logits = likelihood.logits(params, pixel[:channel])
        torch.testing.assert_close(logits.exp().sum(dim=1), torch.ones(5, dtype=torch.float64))
        torch.testing.assert_close(logits.gather(1, value[:, None])[:, 0], nats[:, channel])


def test_a_mixture_stays_finite_far_from_its_components():
    """Even the narrowest component, at one end, has a finite log-probability at the other end."""
    likelihood = LogisticMixture(1, 1)
    params = torch.tensor([0.0, -1.0, -50.0], dtype=torch.float32).view(1, 3, 1, 1)
    params.requires_grad_()
    nats = likelihood.log_prob(params.expand(1, 3, 256, 1), torch.arange(256).view(1, 256, 1, 1))
    far = likelihood.log_prob(params, torch.full((1, 1, 1, 1), 255))
    assert torch.isfinite(nats).all()
    assert torch.isfinite(far).all()
    assert far.item() < -1000
    far.sum().backward()
    assert torch.isfinite(params.grad).all()


def test_a_mixture_in_bfloat16_is_computed_in_float32():
    likelihood, params = mixture(3, num_values=256)
    values = torch.randint(0, 256, (5, 1, 1, 3))
    nats = likelihood.log_prob(params.bfloat16()[:, :, None, None], values)
    assert nats.dtype == torch.float32
    expected = likelihood.log_prob(params.bfloat16().double()[:, :, None, None], values)
    torch.testing.assert_close(nats.double(), expected, rtol=1e-4, atol=1e-4)


def test_sampled_intensities_have_the_mixture_probabilities():
    likelihood, params = mixture(1, batch=1)
    logits = likelihood.logits(params, []).expand(20_000, -1)
    noise = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    codes = sample_codes(logits, noise, SamplingConfig())
    frequencies = torch.bincount(codes, minlength=16) / 20_000
    torch.testing.assert_close(frequencies.double(), logits[0].exp(), atol=1e-4, rtol=0)
