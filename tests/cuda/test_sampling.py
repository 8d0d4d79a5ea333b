"""Sampling on a simulated GPU: no waiting, bounded operations, the codes that the CPU samples."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from prior_cases import CONFIGS, inputs, make
from simulated_cuda import SimulatedCuda
from torch import Tensor

from vqvae2.priors import Prior
from vqvae2.runs.presets import PRESETS
from vqvae2.sampling import LevelSampler, SamplingConfig, sample_level, uniforms

FILTERED = SamplingConfig(temperature=0.9, top_k=4, top_p=0.9)

OPERATIONS = {
    "plain": (41, 76),
    "attention": (50, 82),
    "pixelcnn": (57, 87),
    "row-lstm": (63, 81),
    "diagonal-bilstm": (73, 584),
    "pixelcnnpp": (361, 712),
    "pixelsnail": (105, 143),
    "transformer": (91, 91),
}
"""Per architecture: operations within a row, and at the start of a row, at most."""


OF_THE_DOMAIN = {"1-level": 12, "3-levels": 13, "softmax": 20, "mixture": 90}
"""Further operations of the head, the context and the filters."""


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation, torch.no_grad():
        yield simulation


def on_device(prior: Prior) -> Tensor:
    """Moves a prior; returns the context of three images."""
    _, labels, coarser = inputs(prior)
    prior.to("cuda")
    return prior.embed_context(labels.to("cuda"), [codes.to("cuda") for codes in coarser])


def noise_of(prior: Prior) -> Tensor:
    return uniforms([1, 2, 3], prior.domain.num_values, 0)


@torch.no_grad()
def codes_on_cpu(architecture: str, domain: str, config: SamplingConfig) -> Tensor:
    prior = make(domain, architecture, torch.float32)
    _, labels, coarser = inputs(prior)
    context = prior.embed_context(labels, coarser)
    *_, codes = sample_level(prior, context, noise_of(prior), config)
    return codes


@pytest.mark.parametrize("domain", ["1-level", "3-levels", "softmax", "mixture"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_a_step_of_sampling_never_waits_and_has_few_operations(architecture, domain, cuda):
    prior = make(domain, architecture, torch.float32)
    sampler = LevelSampler(prior, on_device(prior), noise_of(prior), FILTERED, None)
    within, at_start = OPERATIONS[architecture]
    for value in range(prior.domain.num_values):
        cuda.reset()
        sampler.step()
        cuda.counts.require_asynchronous()
        if value == 0:
            continue  # what all positions of a map share is computed once
        starts_row = value % (prior.domain.grid.width * prior.domain.channels) == 0
        limit = (at_start if starts_row else within) + OF_THE_DOMAIN[domain]
        assert cuda.counts.num_operations <= limit, cuda.counts.operations


@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_sampling_under_autocast_never_waits_and_stays_near_float32(architecture, cuda):
    prior = make("2-levels", architecture, torch.float32)
    context = on_device(prior)
    cache, expected = prior.new_cache(context, 3), []
    for _ in range(prior.domain.num_values):
        expected.append(prior.step(cache, torch.zeros(3, dtype=torch.int64).to("cuda")))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        cache, previous = prior.new_cache(context, 3), torch.zeros(3, dtype=torch.int64).to("cuda")
        for logits in expected:
            cuda.reset()
            step = prior.step(cache, previous)
            cuda.counts.require_asynchronous()
            assert (step.float() - logits).abs().max() < 0.05
        *_, codes = sample_level(prior, context, noise_of(prior), SamplingConfig())
    assert 0 <= codes.cpu().min() <= codes.cpu().max() < prior.domain.grid.num_codes


@pytest.mark.parametrize(("level", "within", "at_start"), [(0, 233, 399), (1, 125, 332)])
def test_the_priors_of_imagenet256_have_few_operations_per_position(level, within, at_start, cuda):
    """The counts do not depend on the numbers of channels, which are small here."""
    run = PRESETS["imagenet256"]()
    config = replace(run.levels[level].prior, channels=16, residual_channels=8, num_heads=2)
    prior = Prior(config, run.domain(level)).eval().to("cuda")
    grids = prior.domain.coarser
    coarser = [torch.zeros(1, *grid.shape, dtype=torch.int64).to("cuda") for grid in grids]
    context = prior.embed_context(torch.zeros(1, dtype=torch.int64).to("cuda"), coarser)
    noise = uniforms([1], prior.domain.num_values, 0)
    sampler = LevelSampler(prior, context, noise, SamplingConfig(), None)
    counts = []
    for _ in range(prior.domain.grid.width + 1):
        cuda.reset()
        sampler.step()
        counts.append(cuda.counts.num_operations)
    assert max(counts[1:-1]) <= within
    assert counts[-1] <= at_start


@pytest.mark.parametrize("domain", ["2-levels", "softmax", "mixture"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
def test_recorded_steps_sample_the_codes_that_the_cpu_samples(architecture, domain, cuda):
    expected = codes_on_cpu(architecture, domain, SamplingConfig())
    prior = make(domain, architecture, torch.float32)
    context = on_device(prior)
    *_, codes = sample_level(prior, context, noise_of(prior), SamplingConfig())
    assert torch.equal(codes.cpu(), expected)
    assert cuda.num_replays > 0
