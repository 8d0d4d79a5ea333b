"""What every prior does, whatever its architecture and domain."""

from dataclasses import replace

import pytest
import torch
from prior_cases import CODES, CONFIGS, DOMAINS, inputs, make
from torch.utils._python_dispatch import TorchDispatchMode

from vqvae2.code_grid import CodeGrid
from vqvae2.priors import Prior


def tensors(cache: object) -> list[torch.Tensor]:
    """All tensors inside a cache."""
    if isinstance(cache, torch.Tensor):
        return [cache]
    if isinstance(cache, list | tuple):
        return [tensor for item in cache for tensor in tensors(item)]
    return [t for item in getattr(cache, "__dict__", {}).values() for t in tensors(item)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@torch.no_grad()
def test_step_equals_forward(architecture, domain, dtype):
    prior = make(domain, architecture, dtype)
    values, labels, coarser = inputs(prior)
    expected = prior.log_prob(values, labels, coarser).flatten(1)
    cache = prior.new_cache(prior.embed_context(labels, coarser), 3)
    addresses, previous = [t.data_ptr() for t in tensors(cache)], values[:, 0].flatten()
    limit = {torch.float64: 1e-12, torch.float32: 1e-4, torch.bfloat16: 0.15}[dtype]
    for k in range(prior.domain.num_values):
        logits = prior.step(cache, previous[:3])
        previous = values.flatten(1)[:, k]
        nats = logits.to(expected.dtype).log_softmax(dim=1).gather(1, previous[:, None])[:, 0]
        torch.testing.assert_close(nats, expected[:, k], atol=limit, rtol=limit)
        assert [t.data_ptr() for t in tensors(cache)] == addresses, "a step writes in place"


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1), (2, 3)])
@torch.no_grad()
def test_step_equals_forward_on_narrow_grids(architecture, shape):
    torch.manual_seed(0)
    config = CONFIGS[architecture]
    if architecture == "pixelcnnpp":
        config = replace(config, num_scales=1)
    prior = Prior(config, replace(CODES["1-level"], grid=CodeGrid(7, *shape))).double().eval()
    codes, labels, _ = inputs(prior)
    expected = prior.log_prob(codes, labels, []).flatten(1)
    cache, previous = prior.new_cache(prior.embed_context(labels, []), 3), labels
    for k in range(prior.domain.num_values):
        logits = prior.step(cache, previous)
        previous = codes.flatten(1)[:, k]
        nats = logits.log_softmax(dim=1).gather(1, previous[:, None])[:, 0]
        torch.testing.assert_close(nats, expected[:, k])


@pytest.mark.parametrize("domain", ["2-levels", "softmax", "mixture"])
def test_bfloat16_autocast_gives_a_float32_likelihood_and_finite_gradients(architecture, domain):
    """As on a GPU: weights in float32, the network in bfloat16, the likelihood in float32."""
    prior = make(domain, architecture, torch.float32).train()
    values, labels, coarser = inputs(prior, batch=4)
    expected = prior.eval().log_prob(values, labels, coarser)
    with torch.autocast("cpu", torch.bfloat16):
        nats = prior.log_prob(values, labels, coarser)
        loss = -nats.mean()
    assert nats.dtype == torch.float32
    torch.testing.assert_close(nats, expected, atol=0.2, rtol=0.1)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in prior.parameters() if p.grad is not None)


class Operations(TorchDispatchMode):
    """Records the name of every operation with the shapes of its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        shapes = [a.shape if isinstance(a, torch.Tensor) else a for a in args]
        self.calls.append((str(func), str(shapes)))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("domain", ["2-levels", "softmax"])
@torch.no_grad()
def test_steps_of_equal_phase_run_the_same_operations(architecture, domain):
    """So that one CUDA graph can replay them; `skip` advances the counters as `step` does."""
    prior = make(domain, architecture)
    _, labels, coarser = inputs(prior)
    context = prior.embed_context(labels, coarser).to("meta")
    cache, skipped = (prior.to("meta").new_cache(context, 3) for _ in range(2))
    previous, by_phase = torch.zeros(3, dtype=torch.int64, device="meta"), {}
    for _ in range(prior.domain.num_values):
        phase = prior.phase(cache)
        assert prior.phase(skipped) == phase
        with Operations() as operations:
            prior.step(cache, previous)
        prior.skip(skipped)
        assert by_phase.setdefault(phase, operations.calls) == operations.calls
    limit = 16 + 4 if architecture == "pixelcnnpp" else 1 + 2
    assert len(by_phase) <= limit + prior.domain.channels - 1, "each phase is one CUDA graph"


@torch.no_grad()
def test_likelihood_sums_to_one(architecture, domain):
    """Over all maps of a tiny grid."""
    torch.manual_seed(0)
    config, domain = CONFIGS[architecture], DOMAINS[domain]
    if architecture == "pixelcnnpp":
        config = replace(config, num_scales=2)
    grid = CodeGrid(2, 2, 2) if domain.channels == 3 else CodeGrid(3, 2, 4)
    prior = Prior(config, replace(domain, grid=grid, coarser=(), num_classes=1)).double().eval()
    values = [torch.arange(grid.num_codes)] * prior.domain.num_values
    maps = torch.cartesian_prod(*values).view(-1, *prior.domain.shape)
    labels = torch.zeros(len(maps), dtype=torch.int64)
    total = prior.log_prob(maps, labels, []).flatten(1).sum(dim=1).exp().sum()
    torch.testing.assert_close(total, torch.ones_like(total))


def test_every_parameter_receives_a_gradient(architecture, domain):
    prior = make(domain, architecture)
    if architecture == "pixelcnnpp":
        # A third scale of these grids has a single row, so weights for the row above are unused.
        prior = Prior(replace(prior.config, num_scales=2), prior.domain).double()
    values, labels, coarser = inputs(prior, batch=16)
    torch.manual_seed(0)
    prior.train()
    (-prior.log_prob(values, labels, coarser).mean()).backward()
    unused = [n for n, p in prior.named_parameters() if p.grad is None or not p.grad.any()]
    assert unused == []
