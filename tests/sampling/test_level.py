import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from prior_cases import CONFIGS, DOMAINS, inputs, make

from vqvae2.sampling import (
    UNKNOWN,
    SamplingConfig,
    sample_codes,
    sample_level,
    uniforms,
)
from vqvae2.sampling.level import filter_logits, on_device


def test_inverse_distribution_function_matches_numpy():
    torch.manual_seed(0)
    logits, noise = torch.randn(500, 9).double(), torch.rand(500).double()
    weights = np.exp(logits.numpy())
    cumulative = np.cumsum(weights / weights.sum(axis=1, keepdims=True), axis=1)
    pairs = zip(cumulative, noise.numpy(), strict=True)
    expected = [int(np.searchsorted(row, number, "right")) for row, number in pairs]
    assert sample_codes(logits, noise, SamplingConfig()).tolist() == expected


def test_temperature_0_takes_the_most_probable_code():
    logits = torch.randn(50, 9)
    codes = sample_codes(logits, torch.rand(50).double(), SamplingConfig(temperature=0))
    assert torch.equal(codes, logits.argmax(dim=1))


def test_top_k_and_top_p_exclude_improbable_codes():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log().expand(1000, -1)
    noise = torch.linspace(0, 1, 1001)[:-1].double()
    assert sample_codes(logits, noise, SamplingConfig(top_k=2)).unique().tolist() == [0, 1]
    assert sample_codes(logits, noise, SamplingConfig(top_p=0.7)).unique().tolist() == [0, 1]
    assert sample_codes(logits, noise, SamplingConfig(top_p=0.01)).unique().tolist() == [0]
    shares = torch.bincount(sample_codes(logits, noise, SamplingConfig(top_k=2))) / 1000
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3]), atol=0.01, rtol=0)


def test_noise_at_the_edge_of_1_still_gives_a_code():
    logits = torch.zeros(1, 5)
    edge = torch.tensor([np.nextafter(1.0, 0.0)], dtype=torch.float64)
    noise = on_device(edge, torch.device("cpu"))
    assert sample_codes(logits, noise, SamplingConfig()).item() == 4


def test_the_end_of_the_cumulative_sum_gives_the_last_possible_code():
    torch.manual_seed(0)
    logits = 5 * torch.randn(100, 4096)
    logits[:, -100:] = float("-inf")
    noise = on_device(torch.full((100,), np.nextafter(1.0, 0.0)), torch.device("cpu"))
    codes = sample_codes(logits, noise, SamplingConfig())
    assert codes.max() < 4096 - 100


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 30),
    top_k=st.integers(1, 40),
    top_p=st.floats(0.01, 1.0),
)
@settings(max_examples=50, deadline=None)
def test_only_allowed_codes_are_sampled_and_one_is_always_allowed(seed, k, top_k, top_p):
    noise = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, k, generator=noise).double()
    config = SamplingConfig(top_k=top_k, top_p=top_p)
    allowed = filter_logits(logits, config) > -np.inf
    assert allowed[torch.arange(5), logits.argmax(dim=1)].all()
    assert (allowed.sum(dim=1) <= top_k).all()
    codes = sample_codes(logits, torch.rand(5, generator=noise).double(), config)
    assert allowed[torch.arange(5), codes].all()


@pytest.mark.parametrize("domain", list(DOMAINS))
@pytest.mark.parametrize("architecture", list(CONFIGS))
@torch.no_grad()
def test_sampling_by_steps_equals_sampling_by_complete_passes(architecture, domain):
    """Value by value, from the probabilities that a complete pass gives to the next one."""
    prior, config = make(domain, architecture), SamplingConfig(temperature=0.7, top_k=5)
    maps, labels, coarser = inputs(prior)
    embedded, count = prior.embed_context(labels, coarser), prior.domain.num_values
    noise = uniforms([1, 2, 3], count, 0)
    *_, fast = sample_level(prior, embedded, noise, config)
    slow = torch.zeros_like(maps)
    values = torch.arange(prior.domain.grid.num_codes)
    for k in range(count):
        candidates = slow.flatten(1).repeat_interleave(len(values), dim=0)
        candidates[:, k] = values.repeat(len(slow))
        given = [c.repeat_interleave(len(values), dim=0) for c in (labels, *coarser)]
        nats = prior.log_prob(candidates.view(-1, *prior.domain.shape), given[0], given[1:])
        logits = nats.flatten(1)[:, k].view(len(slow), -1)
        slow.view(3, -1)[:, k] = sample_codes(logits, noise[:, k], config)
    assert torch.equal(fast, slow)


def test_sampling_yields_after_every_position():
    prior = make("1-level", "plain")
    _, labels, coarser = inputs(prior)
    context = prior.embed_context(labels, coarser)
    noise = uniforms([0, 1, 2], prior.domain.num_values, 0)
    num_unknown = [
        int((m == UNKNOWN).sum()) for m in sample_level(prior, context, noise, SamplingConfig())
    ]
    assert num_unknown == [3 * n for n in range(prior.domain.num_values - 1, -1, -1)]
