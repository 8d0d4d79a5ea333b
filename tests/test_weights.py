import json
from dataclasses import replace

import pytest
import torch
from builders import small_autoencoder, small_config

from vqvae2.autoencoder import VQVAE, Pixels, PixelsConfig
from vqvae2.code_grid import CodeGrid
from vqvae2.files import UnknownVersion
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.weights import (
    code_fingerprint,
    fingerprint,
    load_autoencoder,
    load_prior,
    save_autoencoder,
    save_prior,
)


def changed(model, prefix):
    """A copy of the model whose weights with this prefix are other ones."""
    other = VQVAE(model.config)
    other.load_state_dict(model.state_dict())
    for name, tensor in other.state_dict().items():
        if name.startswith(prefix):
            tensor.add_(1)
    return other


def test_the_code_fingerprint_does_not_depend_on_the_decoder(factors):
    model = small_autoencoder(factors, dtype=torch.float32)
    images = torch.rand(2, 3, 16, 16)
    last = f"upsamplers.{len(factors) - 2}"
    for prefix in ("decoder", last, "codebooks.0.counts", "codebooks.0.sums"):
        other = changed(model, prefix)
        assert code_fingerprint(other) == code_fingerprint(model)
        for a, b in zip(model.encode(images), other.encode(images), strict=True):
            assert torch.equal(a, b)
    other = VQVAE(replace(model.config, commitment_weight=1.0))
    other.load_state_dict(model.state_dict())
    assert code_fingerprint(other) == code_fingerprint(model)
    assert fingerprint(changed(model, "decoder")) != fingerprint(model)


def test_the_code_fingerprint_covers_every_tensor_that_decides_codes(factors):
    model = small_autoencoder(factors)
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    _, vectors = model._encode(images, quantize=False)
    inputs = {name for name, _ in model.named_parameters()}
    gradients = torch.autograd.grad(
        sum(x.square().sum() for x in vectors), list(model.parameters()), allow_unused=True
    )
    pairs = zip(model.named_parameters(), gradients, strict=True)
    deciding = {name for (name, _), gradient in pairs if gradient is not None}
    assert deciding == inputs & set(model.code_state())
    assert {f"codebooks.{level}.vectors" for level in range(len(factors))} <= set(
        model.code_state()
    )
    for name in model.code_state():
        assert code_fingerprint(changed(model.float(), name)) != code_fingerprint(model)


@pytest.mark.parametrize("options", [{"pixel_mean": 0.4}, {"pixel_std": 0.5}])
def test_the_code_fingerprint_covers_the_pixel_scale(options):
    model = VQVAE(small_config((2, 4)))
    other = VQVAE(replace(model.config, **options))
    other.load_state_dict(model.state_dict())
    assert code_fingerprint(other) != code_fingerprint(model)


def test_pixels_have_one_code_fingerprint_for_every_likelihood():
    softmax, mixture = Pixels(PixelsConfig()), Pixels(PixelsConfig(num_mixtures=3))
    assert code_fingerprint(softmax) == code_fingerprint(mixture)


def test_an_autoencoder_and_a_prior_are_the_same_after_loading(factors, tmp_path):
    model = small_autoencoder(factors, dtype=torch.float32)
    save_autoencoder(tmp_path / "autoencoder", model.train())
    loaded = load_autoencoder(tmp_path / "autoencoder")
    assert not loaded.training
    assert fingerprint(loaded) == fingerprint(model)
    config = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=1)
    prior = Prior(config, Domain(grid=CodeGrid(5, 2, 2)))
    save_prior(tmp_path / "prior", prior, "abc")
    assert fingerprint(load_prior(tmp_path / "prior", "abc")) == fingerprint(prior)
    with pytest.raises(ValueError, match=r"code fingerprint abc, but this one has abd; train the"):
        load_prior(tmp_path / "prior", "abd")


def test_a_file_of_another_version_is_refused_with_what_to_do(tmp_path):
    save_autoencoder(tmp_path, VQVAE(small_config((4,))))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 2}))
    with pytest.raises(UnknownVersion, match=r"version 3, got .* version 2; .*train again"):
        load_autoencoder(tmp_path)
