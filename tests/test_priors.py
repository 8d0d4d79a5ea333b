from dataclasses import replace

import pytest
import torch

from vqvae2.likelihood import Categorical
from vqvae2.nn.attention import CausalAttention
from vqvae2.priors import Domain, GatedPixelCNN, GatedPixelCNNConfig, Prior

GRIDS = {1: (), 2: ((2, 3),), 3: ((1, 3), (2, 6))}
"""Coarser grids by the number of levels; the prior is that of the finest."""

CONFIGS = {
    "plain": GatedPixelCNNConfig(
        channels=8, residual_channels=6, num_layers=5, kernel=3, num_output_blocks=0
    ),
    "attention": GatedPixelCNNConfig(
        channels=8, residual_channels=6, num_layers=4, attention_every=2, num_heads=2
    ),
}


def make(levels: int, name: str, dtype: torch.dtype = torch.float64) -> Prior:
    torch.manual_seed(0)
    grid = {1: (4, 5), 2: (4, 6), 3: (4, 12)}[levels]
    domain = Domain(num_codes=7, grid=grid, coarser_grids=GRIDS[levels], num_classes=3)
    return GatedPixelCNN(CONFIGS[name], domain).to(dtype).eval()


def inputs(prior: Prior, batch: int = 3) -> tuple:
    generator = torch.Generator().manual_seed(1)
    grids = (prior.domain.grid, *prior.domain.coarser_grids)
    codes, *coarser = [torch.randint(0, 7, (batch, *g), generator=generator) for g in grids]
    labels = torch.randint(0, 3, (batch,), generator=generator)
    return codes, labels, coarser


@pytest.fixture(params=[1, 2, 3], ids=["1-level", "2-levels", "3-levels"])
def levels(request):
    return request.param


@pytest.fixture(params=list(CONFIGS))
def prior(request, levels):
    return make(levels, request.param)


def reach(prior: Prior) -> torch.Tensor:
    """(N, N) booleans: does embedded code j move the logits at position i? By gradient."""
    codes, labels, coarser = inputs(prior, batch=1)
    context = prior.embed_context(labels, coarser)
    # The last ReLU may be shut at a whole position of so narrow a net; look before it.
    prior.output[1] = torch.nn.Identity()
    embedded: list[torch.Tensor] = []
    hook = prior.embedding.register_forward_hook(
        lambda module, args, out: embedded.append(out.requires_grad_()) or out
    )
    logits = prior(codes, context)
    hook.remove()
    weights = torch.randn(7, dtype=torch.float64)
    flat = (logits[0] * weights[:, None, None]).sum(dim=0).flatten()
    rows = []
    for value in flat:
        (gradient,) = torch.autograd.grad(value, embedded[0], retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=2).flatten() > 0)
    return torch.stack(rows)


def test_no_position_depends_on_codes_at_it_or_later(prior):
    assert not reach(prior).triu().any()
    torch.manual_seed(0)
    assert not reach(prior.train()).triu().any(), (
        "nor in training, where attention has its own mask"
    )


def test_attention_with_hardly_any_dropout_is_attention():
    torch.manual_seed(0)
    attention = CausalAttention(8, 2, dropout=1e-12).double()
    x = torch.randn(2, 8, 3, 4).double()
    torch.testing.assert_close(attention.train()(x), attention.eval()(x))


def test_every_earlier_position_reaches_a_position_at_the_stated_depth(levels):
    """L layers of KxK see (K - 1) / 2 columns a layer to both sides: 11 layers of 3x3 for 12."""
    width = {1: 5, 2: 6, 3: 12}[levels]
    deep = replace(CONFIGS["plain"], num_layers=width - 1)
    prior = GatedPixelCNN(deep, make(levels, "plain").domain).double().eval()
    seen = reach(prior)
    assert torch.equal(seen, torch.ones_like(seen).tril(-1))


def test_with_attention_every_earlier_position_reaches_a_position_at_any_depth(levels):
    one = replace(CONFIGS["attention"], num_layers=1, attention_every=1, kernel=3)
    prior = GatedPixelCNN(one, make(levels, "attention").domain).double().eval()
    seen = reach(prior)
    assert torch.equal(seen, torch.ones_like(seen).tril(-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(CONFIGS))
@torch.no_grad()
def test_step_equals_forward(levels, name, dtype):
    prior = make(levels, name, dtype)
    codes, labels, coarser = inputs(prior)
    context = prior.embed_context(labels, coarser)
    whole = prior(codes, context).flatten(2)
    cache, previous = prior.new_cache(context, 3), torch.zeros(3, dtype=torch.int64)
    shapes = None
    for position in range(prior.domain.num_positions):
        params = prior.step(cache, previous)
        limit = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
        torch.testing.assert_close(params, whole[..., position], atol=limit, rtol=limit)
        previous = codes.flatten(1)[:, position]
        now = [tensor.shape for tensor in (*cache.rows, *cache.columns, *cache.biases)]
        assert shapes in (None, now), "shapes never change"
        shapes = now


@torch.no_grad()
def test_likelihood_sums_to_one(levels):
    """Over all maps of a tiny grid, by the chain rule: every code map once."""
    torch.manual_seed(0)
    domain = Domain(num_codes=3, grid=(2, 3), num_classes=1)
    prior = GatedPixelCNN(CONFIGS["attention"], domain).double().eval()
    maps = torch.cartesian_prod(*[torch.arange(3)] * 6).view(-1, 2, 3)
    labels = torch.zeros(len(maps), dtype=torch.int64)
    total = prior.log_prob(maps, labels, []).sum(dim=(1, 2)).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


@torch.no_grad()
def test_class_and_coarser_codes_change_the_result(prior):
    codes, labels, coarser = inputs(prior)
    plain = prior.log_prob(codes, labels, coarser)
    assert not torch.allclose(prior.log_prob(codes, (labels + 1) % 3, coarser), plain)
    for level in range(len(coarser)):
        other = [(c + 1) % 7 if i == level else c for i, c in enumerate(coarser)]
        assert not torch.allclose(prior.log_prob(codes, labels, other), plain)


def test_class_biases_every_gate(prior):
    codes, _, coarser = inputs(prior)
    seen = []
    for layer in prior.layers:
        layer.vertical_bias.register_forward_hook(lambda m, a, out: seen.append(out.detach()))
        layer.horizontal_bias.register_forward_hook(lambda m, a, out: seen.append(out.detach()))
    prior.log_prob(codes, torch.tensor([0, 0, 0]), coarser)
    first, seen[:] = list(seen), []
    prior.log_prob(codes, torch.tensor([1, 1, 1]), coarser)
    assert len(seen) == 2 * len(prior.layers)
    assert not any(torch.allclose(a, b) for a, b in zip(first, seen, strict=True))


def test_every_parameter_receives_a_gradient(prior):
    codes, labels, coarser = inputs(prior, batch=8)
    prior.train()
    (-prior.log_prob(codes, labels, coarser).mean()).backward()
    silent = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_attention_logits_are_dropped_in_training_only():
    prior = make(1, "attention")
    codes, labels, coarser = inputs(prior)
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    calm = prior.log_prob(codes, labels, coarser)
    prior.train()
    assert not torch.allclose(prior.log_prob(codes, labels, coarser), calm)
    prior.eval()
    torch.testing.assert_close(prior.log_prob(codes, labels, coarser), calm)


def test_log_prob_is_cross_entropy():
    params, codes = torch.randn(2, 5, 3, 3).double(), torch.randint(0, 5, (2, 3, 3))
    expected = params.log_softmax(dim=1).gather(1, codes[:, None])[:, 0]
    torch.testing.assert_close(Categorical.log_prob(params, codes), expected)


def test_wrong_context_is_one_clear_line():
    prior = make(2, "plain")
    _, labels, coarser = inputs(prior)
    with pytest.raises(ValueError, match=r"conditioned on codes of grids \(\(2, 3\),\)"):
        prior.domain.check(labels, [])
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\), got 0 to 3"):
        prior.domain.check(torch.tensor([0, 3]), coarser)
    with pytest.raises(ValueError, match=r"Coarser codes must be in \[0, 7\)"):
        prior.domain.check(labels, [coarser[0] + 5])
