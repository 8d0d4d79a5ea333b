"""Recordings of sampling steps: used by all batches of a size, and left where they fail."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from prior_cases import CONFIGS, DOMAINS, make
from simulated_cuda import SimulatedCuda
from torch import Tensor

from vqvae2.priors import Prior
from vqvae2.sampling import UNKNOWN, SamplingConfig, sample_hierarchy, sample_level, uniforms
from vqvae2.sampling.cuda_graphs import warn_once
from vqvae2.sampling.guidance import mixture_of

PLAIN = SamplingConfig()


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation, torch.no_grad():
        yield simulation


def sampled(prior: Prior, seeds: list[int], given: Tensor | None = None) -> Tensor:
    labels = torch.tensor([seed % 3 for seed in seeds]).to(prior.device)
    context = prior.embed_context(labels, [])
    noise = uniforms(seeds, prior.domain.num_values, 0)
    *_, codes = sample_level(prior, context, noise, PLAIN, given)
    return codes


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_a_batch_only_replays_once_every_phase_is_recorded(architecture, cuda):
    """The first position is a phase of its own, so the second batch records it."""
    prior = make("1-level", architecture, torch.float32)
    batches = [1, 2], [3, 4], [5, 6]
    expected = [sampled(prior, seeds) for seeds in batches]
    prior.to("cuda")
    codes = [sampled(prior, seeds) for seeds in batches[:2]]
    graphs, replays = cuda.num_graphs, cuda.num_replays
    codes.append(sampled(prior, batches[2]))
    assert cuda.num_graphs == graphs
    assert cuda.num_replays == replays + prior.domain.num_values
    assert all(torch.equal(a.cpu(), b) for a, b in zip(codes, expected, strict=True))


def test_a_second_batch_never_waits_in_a_step(cuda):
    prior = make("1-level", "attention", torch.float32).to("cuda")
    sampled(prior, [1, 2])
    noise = uniforms([3, 4], prior.domain.num_values, 0)
    context = prior.embed_context(torch.zeros(2, dtype=torch.int64).to("cuda"), [])
    cuda.reset()
    for _ in sample_level(prior, context, noise, PLAIN):
        pass
    cuda.counts.require_asynchronous()


def test_all_levels_and_sizes_of_batches_have_recordings_of_their_own(cuda):
    priors = [make("1-level", "plain", torch.float32), make("1-level", "attention", torch.float32)]
    seeds = [[1, 2], [3], [4, 5], [6]]
    expected = [[sampled(prior, part) for part in seeds] for prior in priors]
    codes = []
    for prior in priors:
        prior.to("cuda")
        codes.append([sampled(prior, part).cpu() for part in seeds])
    assert cuda.num_graphs == 12  # three phases of two sizes of two priors
    for of_prior, wanted in zip(codes, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(of_prior, wanted, strict=True))


def test_given_codes_of_a_batch_do_not_remain_for_the_next(cuda):
    prior = make("1-level", "plain", torch.float32)
    given = torch.full((1, 4, 8), UNKNOWN)
    given[:, 0] = 3
    other = given.clone()
    other[:, 0, :4] = 5
    expected = [sampled(prior, [7], part) for part in (given, other, None)]
    prior.to("cuda")
    codes = [sampled(prior, [7], part).cpu() for part in (given, other, None)]
    assert all(torch.equal(a, b) for a, b in zip(codes, expected, strict=True))


def test_two_samplings_at_once_do_not_share_a_recording(cuda):
    prior = make("1-level", "plain", torch.float32)
    expected = [sampled(prior, [seed]) for seed in (1, 2)]
    prior.to("cuda")
    sampled(prior, [0])
    context = prior.embed_context(torch.tensor([1]).to("cuda"), [])
    other = prior.embed_context(torch.tensor([2]).to("cuda"), [])
    noise = [uniforms([seed], prior.domain.num_values, 0) for seed in (1, 2)]
    pairs = zip(
        sample_level(prior, context, noise[0], PLAIN),
        sample_level(prior, other, noise[1], PLAIN),
        strict=True,
    )
    *_, last = pairs
    assert all(torch.equal(a.cpu(), b) for a, b in zip(last, expected, strict=True))


def test_a_recording_lives_no_longer_than_its_prior(cuda):
    prior = make("1-level", "plain", torch.float32).to("cuda")
    sampled(prior, [1])
    reference = weakref.ref(prior)
    del prior
    gc.collect()
    assert reference() is None


def test_new_weights_in_place_are_used_by_old_recordings(cuda):
    prior, other = (make("1-level", "plain", torch.float32) for _ in range(2))
    for weight in other.parameters():
        weight.mul_(1.5)
    expected = sampled(other, [1])
    prior.to("cuda")
    sampled(prior, [1])
    for weight, new in zip(prior.parameters(), other.parameters(), strict=True):
        weight.copy_(new)
    assert torch.equal(sampled(prior, [1]).cpu(), expected)


@pytest.mark.parametrize("fails_at", ["begin", "end"])
def test_a_failed_recording_samples_directly_after_one_warning(fails_at, cuda, monkeypatch):
    warn_once.cache_clear()
    priors = [make("1-level", "plain", torch.float32), make("1-level", "attention", torch.float32)]
    expected = [sampled(prior, [1]) for prior in priors]
    record = torch.cuda.graph

    @contextmanager
    def failing(graph: object, **options: object) -> Iterator[None]:
        if fails_at == "begin":
            raise RuntimeError("operation not permitted when stream is capturing")
        with record(graph, **options):
            yield
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    with pytest.warns(RuntimeWarning, match="cannot be recorded as CUDA graphs") as warnings:
        codes = [sampled(prior.to("cuda"), [1]).cpu() for prior in priors * 2]
    assert len(warnings) == 1
    assert all(torch.equal(a, b) for a, b in zip(codes, expected * 2, strict=True))


def test_a_hierarchy_on_the_device_samples_the_codes_of_the_cpu(cuda):
    priors = [make("1-level", "plain", torch.float32), make("2-levels", "plain", torch.float32)]
    priors[0].domain = priors[1].domain.__class__(grid=priors[1].domain.coarser[0], num_classes=3)
    priors[0] = Prior(priors[0].config, priors[0].domain).eval()
    request = [1, 2], [5, 6], [PLAIN, PLAIN]
    expected = sample_hierarchy(priors, *request)
    for prior in priors:
        prior.to("cuda")
    for _ in range(2):
        codes = sample_hierarchy(priors, *request)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(codes, expected, strict=True))


@pytest.mark.parametrize("architecture", ["attention", "pixelsnail", "transformer"])
def test_attention_reads_few_numbers_of_keys_each_with_a_recording(
    architecture, cuda, monkeypatch
):
    monkeypatch.setattr("vqvae2.nn.attention.MIN_LENGTH", 1)
    prior = make("1-level", architecture, torch.float32)
    expected = sampled(prior, [1, 2])
    prior.to("cuda")
    codes = [sampled(prior, [1, 2]).cpu() for _ in range(3)]
    assert all(torch.equal(part, expected) for part in codes)
    rows, lengths = 4, 8  # a row reads up to two lengths, and its start is a phase of its own
    assert cuda.num_graphs <= rows + lengths + 1


@pytest.mark.parametrize("unconditional", ["null-label", "bayes"])
def test_guided_batches_replay_and_never_wait(unconditional, cuda):
    domain = replace(DOMAINS["1-level"], null_label=True)
    prior = Prior(CONFIGS["attention"], domain).eval()
    config = SamplingConfig(guidance=2, unconditional=unconditional, guidance_schedule="linear")

    def guided(seeds: list[int]) -> Tensor:
        labels = torch.tensor([seed % 3 for seed in seeds]).to(prior.device)
        mixture = mixture_of([prior], [], config, len(seeds))
        noise, context = uniforms(seeds, 32, 0), prior.embed_context(labels, [])
        cuda.reset()
        *_, codes = sample_level(prior, context, noise, config, None, mixture)
        cuda.counts.require_asynchronous()
        return codes

    batches = [1, 2], [3, 4], [5, 6]
    expected = [guided(seeds) for seeds in batches]
    prior.to("cuda")
    assert all(torch.equal(guided(s).cpu(), b) for s, b in zip(batches, expected, strict=True))
    assert cuda.num_replays >= 32
