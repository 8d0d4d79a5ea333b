"""No model builds a tensor of all pairs of positions: neither logits of attention nor a mask."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from prior_cases import CONFIGS, NUM_CLASSES
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Domain, Prior

SIDE = 32
NUM_POSITIONS = SIDE * SIDE
DOMAIN = Domain(grid=CodeGrid(7, SIDE, SIDE), num_classes=NUM_CLASSES)


class NoPairs(TorchDispatchMode):
    """Fails at an operation whose result has an element per pair of positions."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                assert tensor.numel() < NUM_POSITIONS**2, (func, tuple(tensor.shape))
        return result


def new_prior(architecture: str, dropout: float) -> Prior:
    torch.manual_seed(0)
    return Prior(replace(CONFIGS[architecture], dropout=dropout), DOMAIN)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("architecture", CONFIGS)
def test_forward_and_backward_build_no_tensor_of_all_pairs(architecture, dropout, precision):
    prior = new_prior(architecture, dropout)
    codes = torch.randint(7, (1, SIDE, SIDE))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16)
    with NoPairs(), autocast:
        prior.log_prob(codes, torch.zeros(1, dtype=torch.int64), []).sum().backward()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_the_last_steps_build_no_tensor_of_all_pairs(architecture):
    prior = new_prior(architecture, 0.1).eval()
    context = prior.embed_context(torch.zeros(1, dtype=torch.int64), [])
    cache = prior.new_cache(context, 1)
    for _ in range(NUM_POSITIONS - SIDE):
        prior.skip(cache)
        cache.position.index -= 1
        cache.position.advance()
    with NoPairs():
        for _ in range(SIDE):
            prior.step(cache, torch.zeros(1, dtype=torch.int64))


@torch.no_grad()
def test_the_measure_finds_a_tensor_of_all_pairs():
    heads = torch.randn(1, 2, NUM_POSITIONS, 4), torch.randn(1, 2, NUM_POSITIONS, 4)
    values = torch.randn(1, 2, NUM_POSITIONS, 8)  # of another size than keys
    with pytest.raises(AssertionError, match="1024, 1024"), NoPairs():
        torch.nn.functional.scaled_dot_product_attention(*heads, values, is_causal=True)
