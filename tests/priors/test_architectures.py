"""Every architecture of the family, on codes of 1, 2 and 3 levels and on pixels."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from unittest import mock

import pytest
import torch
from prior_cases import CODES, CONFIGS, DOMAINS, PIXELS, inputs, make
from torch.utils._python_dispatch import TorchDispatchMode

from vqvae2.code_grid import CodeGrid
from vqvae2.nn.attention import CausalAttention, KeyValueCache
from vqvae2.nn.causal import RasterPosition
from vqvae2.priors import (
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    Prior,
    RowLSTMConfig,
    TransformerConfig,
)


@pytest.fixture(params=list(DOMAINS))
def context(request):
    return request.param


@pytest.fixture(params=list(CONFIGS))
def name(request):
    return request.param


@pytest.fixture
def prior(context, name):
    return make(context, name)


def reach(prior: Prior) -> torch.Tensor:
    """(N, N) booleans: does embedded value j move the features at position i? By gradient.

    Without ReLUs, which in networks so narrow may be shut at a whole position.
    """
    softplus = torch.nn.functional.softplus
    with mock.patch.object(torch.nn.functional, "relu", lambda x, inplace=False: softplus(x)):
        return moved(prior)


def moved(prior: Prior) -> torch.Tensor:
    values, labels, coarser = inputs(prior, batch=1)
    context = prior.embed_context(labels, coarser)
    embedded = prior.values(values).detach().requires_grad_()
    features = prior.network(embedded, context)
    weights = torch.randn(features.shape[1], 1, 1, dtype=features.dtype)
    rows = []
    for value in (features[0] * weights).sum(dim=0).flatten():
        (gradient,) = torch.autograd.grad(value, embedded, retain_graph=True)
        rows.append(gradient[0].abs().sum(dim=0).flatten() > 0)
    return torch.stack(rows)


def whole_past(count: int) -> torch.Tensor:
    return torch.ones(count, count, dtype=torch.bool).tril(-1)


def test_no_position_depends_on_values_at_it_or_later(prior):
    assert not reach(prior).triu().any()
    torch.manual_seed(0)
    assert not reach(prior.train()).triu().any(), "nor in training, where masks are others"


@pytest.mark.parametrize("context", list(PIXELS))
@torch.no_grad()
def test_no_colour_depends_on_those_at_it_or_later(name, context):
    """Other colours from k on leave the log-probabilities before k as they were."""
    prior = make(context, name)
    values, labels, coarser = inputs(prior, batch=1)
    before = prior.log_prob(values, labels, coarser).flatten()
    for k in range(0, prior.domain.num_values, 5):
        other = values.flatten().clone()
        other[k:] = (other[k:] + 1) % prior.domain.grid.num_codes
        after = prior.log_prob(other.view_as(values), labels, coarser).flatten()
        torch.testing.assert_close(after[:k], before[:k], atol=1e-13, rtol=0)


DEPTHS: dict[str, Callable[[int], object]] = {
    # L layers of 3x3 see L columns to the side of what the shift left them.
    "plain": lambda width: replace(CONFIGS["plain"], num_layers=width - 1),
    "attention": lambda width: replace(CONFIGS["attention"], num_layers=1, attention_every=1),
    "diagonal-bilstm": lambda width: replace(CONFIGS["diagonal-bilstm"], num_layers=1),
    # Found by trying: with fewer, the far left of its own row is out of reach.
    "pixelcnnpp": lambda width: replace(CONFIGS["pixelcnnpp"], num_layers=width // 4),
    "pixelsnail": lambda width: replace(CONFIGS["pixelsnail"], num_blocks=1),
    "transformer": lambda width: replace(CONFIGS["transformer"], num_layers=1),
}


@pytest.mark.parametrize("name", list(DEPTHS))
@pytest.mark.parametrize("context", list(CODES))
def test_every_earlier_position_reaches_a_position_at_the_stated_depth(name, context):
    torch.manual_seed(0)
    domain = DOMAINS[context]
    seen = reach(Prior(DEPTHS[name](domain.grid.width), domain).double().eval())
    assert torch.equal(seen, whole_past(len(seen)))


def seen_through_masks(prior: Prior, past: Callable, layers: int) -> torch.Tensor:
    """What layers of `past(row, column)` and a first layer without itself reach, by set logic."""
    height, width = prior.domain.grid.shape

    def inside(places):
        return {(r, c) for r, c in places if 0 <= r and 0 <= c < width}

    @cache
    def reached(layer, row, column):
        if layer:
            return set().union(*(reached(layer - 1, *p) for p in inside(past(row, column))))
        above = {(row - i, column + j) for i in (1, 2, 3) for j in range(-3, 4)}
        left = {divmod(row * width + column - i - 1, width) for i in range(min(3, column + 1))}
        return inside(above | left)

    seen = torch.zeros(height * width, height * width, dtype=torch.bool)
    for row in range(height):
        for column in range(width):
            for r, c in reached(layers, row, column):
                seen[row * width + column, r * width + c] = True
    return seen


def test_pixelcnn_has_the_blind_spot_of_its_paper_and_no_other():
    """A masked 3x3 sees one column to the right a row up: nothing flatter to the upper right."""
    prior = make("3-levels", "pixelcnn")

    def past(row, column):
        return [(row - 1, column + j) for j in (-1, 0, 1)] + [(row, column - 1), (row, column)]

    expected = seen_through_masks(prior, past, layers=3)
    assert torch.equal(reach(prior), expected)
    assert not torch.equal(expected, whole_past(len(expected)))


def test_row_lstm_sees_the_triangle_of_its_paper():
    """Its state comes from three columns of the row above, whose states come from five, ..."""
    prior = make("3-levels", "row-lstm")

    def past(row, column):
        return [(row - i, column + j) for i in range(row + 1) for j in range(-i - 1, i + 1)]

    assert torch.equal(reach(prior), seen_through_masks(prior, past, layers=2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_step_equals_forward(name, context, dtype):
    prior = make(context, name, dtype)
    values, labels, coarser = inputs(prior)
    whole = prior.log_prob(values, labels, coarser).flatten(1)
    cache = prior.new_cache(prior.embed_context(labels, coarser), 3)
    held, previous = [tensor.data_ptr() for tensor in tensors(cache)], values[:, 0].flatten()
    limit = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.15}[dtype]
    for k in range(prior.domain.num_values):
        logits = prior.step(cache, previous[:3])
        previous = values.flatten(1)[:, k]
        here = logits.to(whole.dtype).log_softmax(dim=1).gather(1, previous[:, None])[:, 0]
        torch.testing.assert_close(here, whole[:, k], atol=limit, rtol=limit)
        assert [t.data_ptr() for t in tensors(cache)] == held, "a step writes in place"


@pytest.mark.parametrize("grid", [(1, 8), (8, 1), (1, 1), (2, 3)])
@torch.no_grad()
def test_step_equals_forward_on_narrow_grids(name, grid):
    torch.manual_seed(0)
    config = CONFIGS[name]
    if name == "pixelcnnpp":
        config = replace(config, num_scales=1)
    prior = Prior(config, replace(CODES["1-level"], grid=CodeGrid(7, *grid))).double().eval()
    codes, labels, _ = inputs(prior)
    whole = prior.log_prob(codes, labels, []).flatten(1)
    cache, previous = prior.new_cache(prior.embed_context(labels, []), 3), labels
    for k in range(prior.domain.num_values):
        logits = prior.step(cache, previous)
        previous = codes.flatten(1)[:, k]
        here = logits.log_softmax(dim=1).gather(1, previous[:, None])[:, 0]
        torch.testing.assert_close(here, whole[:, k])


@pytest.mark.parametrize("context", ["2-levels", "softmax", "mixture"])
def test_training_under_bfloat16_autocast_learns_from_every_value(name, context):
    """As on a GPU: weights in float32, the network in bfloat16, the likelihood in float32."""
    prior = make(context, name, torch.float32).train()
    values, labels, coarser = inputs(prior, batch=4)
    exact = prior.eval().log_prob(values, labels, coarser)
    with torch.autocast("cpu", torch.bfloat16):
        nats = prior.log_prob(values, labels, coarser)
        loss = -nats.mean()
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, exact, atol=0.2, rtol=0.1)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in prior.parameters() if p.grad is not None)


@torch.no_grad()
def test_attending_by_a_mask_equals_attending_to_a_view():
    torch.manual_seed(0)
    past = KeyValueCache(torch.randn(2, 3, 20, 4), torch.randn(2, 3, 20, 5))
    query, place = torch.randn(2, 3, 1, 4), RasterPosition.start(5, torch.device("cpu"))
    for _ in range(20):
        by_view, by_mask = past.attend_to_prefix(query, place), past.attend_masked(query, place)
        torch.testing.assert_close(by_view, by_mask)
        place.advance()


class Operations(TorchDispatchMode):
    """Notes every operation with the shapes that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [a.shape if isinstance(a, torch.Tensor) else a for a in args]
        self.seen.append((str(func), str(shapes)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("context", ["2-levels", "softmax", "mixture"])
@torch.no_grad()
def test_steps_of_equal_phase_do_the_same_operations(name, context):
    """So that a GPU may record one and replay it; skipping counts as stepping does."""
    prior = make(context, name)
    _, labels, coarser = inputs(prior)
    embedded = prior.embed_context(labels, coarser).to("meta")
    cache, counted = (prior.to("meta").new_cache(embedded, 3) for _ in range(2))
    previous, first = torch.zeros(3, dtype=torch.int64, device="meta"), {}
    for _ in range(prior.domain.num_values):
        phase = prior.phase(cache)
        assert prior.phase(counted) == phase
        with Operations() as operations:
            prior.step(cache, previous)
        prior.skip(counted)
        assert first.setdefault(phase, operations.seen) == operations.seen
    few = 16 + 4 if name == "pixelcnnpp" else 1 + 2
    assert len(first) <= few + prior.domain.channels - 1, "each is a recording to be held"


def tensors(cache: object) -> list[torch.Tensor]:
    """All tensors inside a cache."""
    if isinstance(cache, torch.Tensor):
        return [cache]
    if isinstance(cache, list | tuple):
        return [tensor for item in cache for tensor in tensors(item)]
    return [t for item in getattr(cache, "__dict__", {}).values() for t in tensors(item)]


@torch.no_grad()
def test_likelihood_sums_to_one(name, context):
    """Over all maps of a tiny grid, by the chain rule: every map once."""
    torch.manual_seed(0)
    config, domain = make(context, name).config, DOMAINS[context]
    if name == "pixelcnnpp":
        config = replace(config, num_scales=2)
    grid = CodeGrid(2, 2, 2) if domain.channels == 3 else CodeGrid(3, 2, 4)
    tiny = replace(domain, grid=grid, coarser=(), num_classes=1)
    prior = Prior(config, tiny).double().eval()
    numbers = [torch.arange(prior.domain.grid.num_codes)] * prior.domain.num_values
    maps = torch.cartesian_prod(*numbers).view(-1, *prior.domain.shape)
    labels = torch.zeros(len(maps), dtype=torch.int64)
    total = prior.log_prob(maps, labels, []).flatten(1).sum(dim=1).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


@torch.no_grad()
def test_class_and_coarser_codes_change_the_result(prior):
    values, labels, coarser = inputs(prior)
    plain = prior.log_prob(values, labels, coarser)
    assert not torch.allclose(prior.log_prob(values, (labels + 1) % 3, coarser), plain)
    for level in range(len(coarser)):
        other = list(coarser)
        other[level] = (other[level] + 1) % prior.domain.coarser[level].num_codes
        assert not torch.allclose(prior.log_prob(values, labels, other), plain)


@pytest.mark.parametrize("name", ["plain", "attention"])
def test_class_biases_every_gate(prior):
    values, _, coarser = inputs(prior)
    seen = []
    for layer in prior.network.layers:
        layer.vertical_bias.register_forward_hook(lambda m, a, out: seen.append(out.detach()))
        layer.horizontal_bias.register_forward_hook(lambda m, a, out: seen.append(out.detach()))
    prior.log_prob(values, torch.tensor([0, 0, 0]), coarser)
    first, seen[:] = list(seen), []
    prior.log_prob(values, torch.tensor([1, 1, 1]), coarser)
    assert len(seen) == 2 * len(prior.network.layers)
    assert not any(torch.allclose(a, b) for a, b in zip(first, seen, strict=True))


def test_every_parameter_receives_a_gradient(name, context):
    prior = make(context, name)
    if name == "pixelcnnpp":
        # A third scale of these grids is one row high: what looks at the row above sees nothing.
        prior = Prior(replace(prior.config, num_scales=2), prior.domain).double()
    values, labels, coarser = inputs(prior, batch=16)
    torch.manual_seed(0)
    prior.train()
    (-prior.log_prob(values, labels, coarser).mean()).backward()
    silent = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize("rows", [4, 5, 256], ids=lambda rows: f"{rows} rows at a time")
def test_attention_with_hardly_any_dropout_is_attention(rows):
    torch.manual_seed(0)
    attention = CausalAttention(8, 2, dropout=1e-12).double()
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64, requires_grad=True)
    with mock.patch("vqvae2.nn.attention.QUERY_CHUNK", rows):
        dropped = attention.train()(x)
    whole = attention.eval()(x)
    torch.testing.assert_close(dropped, whole)
    weights = torch.randn_like(whole)
    gradients = [torch.autograd.grad((out * weights).sum(), x)[0] for out in (dropped, whole)]
    torch.testing.assert_close(*gradients)


def test_attention_with_dropout_keeps_no_map_of_all_pairs_for_its_gradient():
    attention, x = CausalAttention(8, 2, dropout=0.1), torch.randn(1, 8, 32, 32)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        attention(x)
    assert max(kept) <= 3 * 8 * 1024


def test_attention_logits_are_dropped_in_training_only():
    prior = make("1-level", "attention")
    values, labels, coarser = inputs(prior)
    for module in prior.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    calm = prior.log_prob(values, labels, coarser)
    prior.train()
    assert not torch.allclose(prior.log_prob(values, labels, coarser), calm)
    prior.eval()
    torch.testing.assert_close(prior.log_prob(values, labels, coarser), calm)


def test_near_intensities_start_near():
    vectors = make("softmax", "plain").values.vectors.weight.detach()[:6]
    steps = vectors.diff(dim=0).norm(dim=1)
    assert steps.max() < (vectors[0] - vectors[-1]).norm()


def test_wrong_context_is_one_clear_line():
    prior = make("2-levels", "plain")
    _, labels, coarser = inputs(prior)
    with pytest.raises(ValueError, match=r"conditioned on codes of grids \(\(2, 4\),\)"):
        prior.domain.check(labels, [])
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 3\), got 0 to 3"):
        prior.domain.check(torch.tensor([0, 3, 1]), coarser)
    with pytest.raises(ValueError, match=r"Coarser codes must be in \[0, 5\)"):
        prior.domain.check(labels, [coarser[0] + 5])


def test_grids_and_heads_that_do_not_fit_are_one_clear_line():
    with pytest.raises(ValueError, match="sides that are multiples of 4, got 4x6"):
        Prior(CONFIGS["pixelcnnpp"], Domain(grid=CodeGrid(3, 4, 6)))
    with pytest.raises(ValueError, match="multiple of 4 channels, got 12 channels in 2 heads"):
        TransformerConfig(channels=12, num_heads=2)
    for config in (GatedPixelCNNConfig, PixelCNNConfig, RowLSTMConfig):
        with pytest.raises(ValueError, match="must be odd, got 4"):
            config(kernel=4)
    with pytest.raises(ValueError, match="num_scales must be at least 1, got 0"):
        PixelCNNPPConfig(num_scales=0)
    with pytest.raises(ValueError, match="8 channels and 0 heads; use 8 channels"):
        GatedPixelCNNConfig(channels=8, attention_every=1, num_heads=0)
    with pytest.raises(ValueError, match="ordered values; codes have no order"):
        Domain(grid=CodeGrid(3, 2, 2), num_mixtures=4)
