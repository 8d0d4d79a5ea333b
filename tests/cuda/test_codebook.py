"""The quantiser on a simulated GPU: few large operations instead of many that fit CPU caches."""

import pytest
import torch
from simulated_cuda import DEVICE, SimulatedCuda

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig


@pytest.mark.parametrize("gradient", ["straight", "rotate"])
def test_a_batch_of_large_maps_is_quantised_in_one_piece(gradient):
    """32 maps of 64x64, as of 256x256 images, are eight pieces on a CPU."""
    config = CodebookConfig(num_codes=32, code_size=4, gradient=gradient)
    with SimulatedCuda() as cuda:
        codebook = Codebook(config).to(DEVICE)
        x = torch.randn(32, 4, 64, 64).to(DEVICE)
        cuda.reset()
        quantized = codebook(x)
        assert cuda.counts.num_operations <= (20 if gradient == "straight" else 45)
        cuda.reset()
        codebook.update(quantized, torch.Generator().manual_seed(0))
        assert cuda.counts.num_operations <= 45
        cuda.counts.require_asynchronous()


def test_the_device_finds_the_codes_that_the_cpu_finds():
    torch.manual_seed(0)
    codebook, x = Codebook(CodebookConfig(num_codes=32, code_size=4)), torch.randn(8, 4, 64, 64)
    expected = codebook.nearest(x)
    with SimulatedCuda():
        assert torch.equal(codebook.to(DEVICE).nearest(x.to(DEVICE)).cpu(), expected)
