from unittest import mock

import pytest
import torch

from vqvae2.nn.attention import CausalAttention, KeyValueCache, Prefix, new_mask, num_keys
from vqvae2.nn.causal import RasterPosition


@torch.no_grad()
def test_attending_with_a_mask_equals_attending_to_a_prefix():
    torch.manual_seed(0)
    cache = KeyValueCache(torch.randn(2, 3, 20, 4), torch.randn(2, 3, 20, 5))
    mask = new_mask(cache.keys, 20)
    position = RasterPosition.start((4, 5), torch.device("cpu"))
    for index in range(20):
        heads = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 4), torch.randn(2, 3, 1, 5)
        expected = cache.attend(*heads, Prefix.at(position, mask))
        for length in {index + 1, min(20, index // 8 * 8 + 8), 20}:
            masked = Prefix.masked(position, mask, length)
            torch.testing.assert_close(cache.attend(*heads, masked), expected)
        position.advance()


@pytest.mark.parametrize("num_positions", [1, 20, 64, 100, 1024, 4096, 5000])
def test_few_numbers_of_keys_cover_all_positions(num_positions):
    lengths = [num_keys(index, num_positions) for index in range(num_positions)]
    assert all(index < n <= num_positions for index, n in enumerate(lengths))
    assert len({*lengths}) <= 8
    if num_positions >= 1024:
        assert sum(lengths) < 0.6 * num_positions**2


@pytest.mark.parametrize("chunk", [4, 5, 256], ids=lambda chunk: f"{chunk} queries per chunk")
def test_attention_with_a_tiny_dropout_equals_attention_without(chunk):
    torch.manual_seed(0)
    attention = CausalAttention(8, 2, dropout=1e-12).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    with mock.patch("vqvae2.nn.attention.QUERY_CHUNK", chunk):
        with_dropout = attention.train()(x)
    without = attention.eval()(x)
    torch.testing.assert_close(with_dropout, without)
    weights = torch.randn_like(without)
    outputs = (with_dropout, without)
    gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in outputs]
    torch.testing.assert_close(*gradients)


def test_attention_with_dropout_saves_no_map_of_all_pairs_for_the_backward_pass():
    attention, x = CausalAttention(8, 2, dropout=0.1), torch.randn(1, 8, 32, 32)
    sizes = []

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        attention(x)
    assert max(sizes) <= 3 * 8 * 1024
