import math

import numpy as np
import pytest
import torch
from builders import small_autoencoder, synthetic_images

from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.metrics.classifier import accuracy, labelled, train_classifier
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.likelihood import bits_per_dim
from vqvae2.metrics.probe import code_features, probe_accuracy
from vqvae2.metrics.usage import CodeUsage


def test_usage_and_perplexity_are_counted_over_the_whole_set():
    usage = CodeUsage.of(8)
    for code in range(4):
        usage.add(torch.full((2, 3, 3), code))  # every batch alone has perplexity 1
    assert usage.used == 4
    assert usage.share_used == 0.5
    assert usage.perplexity == pytest.approx(4)
    assert CodeUsage.of(5).perplexity == pytest.approx(1)


def test_distortion_matches_numpy_and_does_not_depend_on_the_batches(factors):
    model = small_autoencoder(factors)
    images = synthetic_images(7).double()
    a = measure_distortion(model, [images])
    b = measure_distortion(model, images.split(3))
    restored = model.decode(model.encode(images)).clamp(0, 1).detach().numpy()
    mse = ((restored - images.numpy()) ** 2).mean()
    assert a.mse == pytest.approx(mse, rel=1e-10)
    assert a.psnr == pytest.approx(-10 * math.log10(mse))
    assert a.variance == pytest.approx(images.numpy().var())
    for name in ("mse", "ssim", "variance", "mse_alone", "mse_without"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9)
    assert [u.counts.tolist() for u in a.usage] == [u.counts.tolist() for u in b.usage]


def test_blanking_the_other_level_of_two_is_showing_one_alone():
    seen = measure_distortion(small_autoencoder((2, 4)), [synthetic_images(4).double()])
    assert seen.mse_alone == pytest.approx(seen.mse_without[::-1])


def test_ssim_of_a_image_with_itself_is_1_and_small_images_have_none():
    class Perfect(torch.nn.Module):
        config = small_autoencoder((2,)).config

        def encode(self, images):
            self.images = images
            return [torch.zeros(len(images), 2, 2, dtype=torch.int64)]

        def decode(self, codes, levels=None):
            return self.images

    seen = measure_distortion(Perfect(), [synthetic_images(2)])
    assert (seen.mse, seen.ssim) == (0, pytest.approx(1))
    assert math.isnan(measure_distortion(Perfect(), [synthetic_images(2, size=8)]).ssim)


def test_measuring_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one image"):
        measure_distortion(small_autoencoder((2,)), [])


def test_bits_per_dimension_add_up_levels():
    nats = bits_per_dim([math.log(512), math.log(512)], [16, 64], (3, 32, 32))
    assert nats == pytest.approx(80 * 9 / 3072)


def test_a_linear_probe_reads_what_is_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 6, (600, 2, 2), generator=generator)
    truth = codes[:, 0, 1] // 2
    noise = torch.randint(0, 3, (600,), generator=generator)

    def score(features, target):
        x = code_features(codes, 6, features)
        return probe_accuracy((x[:400], target[:400]), (x[400:], target[400:]))

    assert score("places", truth) > 0.98
    assert score("counts", truth) < 0.8
    assert score("places", noise) < 0.5
    assert code_features(codes, 6, "places").shape == (600, 24)


def test_the_classifier_learns_the_built_in_classes():
    data = open_images(DataConfig(size=32, synthetic_images=1500))
    model = train_classifier(data.train, 12, steps=160, batch=48)
    assert accuracy(model, labelled(data.validation, 120)) > 0.6
    shuffled = ((images, labels.flip(0)) for images, labels in labelled(data.validation, 120))
    assert accuracy(model, shuffled) < 0.4


def test_labelled_images_are_spread_over_the_classes():
    data = open_images(DataConfig(size=16, synthetic_images=240))
    labels = torch.cat([labels for _, labels in labelled(data.train, 100)])
    assert np.unique(labels.numpy()).size == 12
