"""Radial power spectra."""

import pytest
import torch
import torch.nn.functional as F

from vqvae2.metrics.spectrum import radial_spectra, spectral_distance


def noise(count: int = 64, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_white_noise_has_equal_power_at_every_frequency():
    spectrum = radial_spectra(noise(512)).mean(dim=0)
    assert spectrum.shape == (8,)
    # The mean of three channels has a third of their variance.
    torch.testing.assert_close(spectrum, torch.full((8,), 1 / 3), rtol=0.1, atol=0)


@pytest.mark.parametrize("frequency", [1, 3, 7])
def test_a_wave_has_its_power_at_its_frequency(frequency):
    wave = torch.cos(2 * torch.pi * frequency * torch.arange(16) / 16)
    spectrum = radial_spectra(wave.expand(1, 3, 16, 16))[0]
    assert int(spectrum.argmax()) + 1 == frequency
    assert spectrum.sum() == pytest.approx(float(spectrum.max()), rel=1e-3)


def test_power_adds_up_to_the_variance():
    images = noise(4)
    brightness = images.mean(dim=1)
    power = torch.fft.fft2(brightness, norm="ortho").abs().square()
    rows = torch.fft.fftfreq(16) * 16
    radius = torch.hypot(rows[:, None], rows[None, :]).round()
    expected = torch.stack([power[:, radius == r].mean(dim=1) for r in range(1, 9)], dim=1)
    torch.testing.assert_close(radial_spectra(images), expected)


def test_blur_lowers_high_frequencies_and_the_distance_shows_it():
    images = noise()
    soft = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="circular"), 3, stride=1)
    real, blurred = (radial_spectra(part).mean(dim=0) for part in (images, soft))
    assert (blurred / real)[-1] < (blurred / real)[0]
    assert spectral_distance(real, blurred) > 3
    assert spectral_distance(real, real) == 0
    assert spectral_distance(real, 10 * real) == pytest.approx(10), "in dB"


def test_images_need_not_be_square():
    assert radial_spectra(noise(2, 8, 20)).shape == (2, 4)
