"""A second decoder of the same codes."""

import pytest
import torch
from builders import FACTORS, small_autoencoder, synthetic_images

from vqvae2.autoencoder.sharp_decoder import SharpDecoder, SharpDecoderConfig
from vqvae2.weights import code_fingerprint

SMALL = SharpDecoderConfig(channels=24, residual_channels=8, num_residual_blocks=1)


@pytest.mark.parametrize("factors", FACTORS)
def test_a_sharp_decoder_decodes_the_codes_of_all_levels(factors):
    model = small_autoencoder(factors)
    decoder = SharpDecoder(SMALL, model.config).double()
    images = synthetic_images(2).double()
    vectors = [x.requires_grad_() for x in model.embed(model.encode(images))]
    decoded = decoder(vectors)
    assert decoded.shape == images.shape
    decoded.sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in vectors)
    assert torch.equal(decoder.decode(model, model.encode(images)), decoded)


def test_a_plain_decoder_of_the_same_weights_decodes_the_same():
    model = small_autoencoder((2, 4))
    same = SharpDecoderConfig(channels=16, residual_channels=8, num_residual_blocks=1)
    decoder = SharpDecoder(same, model.config).double()
    state = model.state_dict()
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    codes = model.encode(synthetic_images(2).double())
    torch.testing.assert_close(decoder.decode(model, codes), model.decode(codes))


def test_codes_do_not_depend_on_the_sharp_decoder():
    model = small_autoencoder((2, 4))
    before = code_fingerprint(model)
    decoder = SharpDecoder(SMALL, model.config).double()
    decoder(model.embed(model.encode(synthetic_images(2).double()))).sum().backward()
    assert code_fingerprint(model) == before
