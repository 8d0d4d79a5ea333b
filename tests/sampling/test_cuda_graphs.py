"""Recorded steps on a GPU; `tests/cuda` tests them on a simulated one."""

import pytest
import torch
from prior_cases import CONFIGS, DOMAINS, inputs, make

from vqvae2.sampling import LevelSampler, SamplingConfig, sample_level, uniforms


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="records CUDA graphs: needs a GPU")
@pytest.mark.parametrize("domain", list(DOMAINS))
@pytest.mark.parametrize("architecture", list(CONFIGS))
@torch.no_grad()
def test_recorded_steps_sample_the_same_codes_as_steps(architecture, domain):
    prior = make(domain, architecture).cuda()
    _, labels, coarser = inputs(prior)
    context = prior.embed_context(labels.cuda(), [codes.cuda() for codes in coarser])
    noise = uniforms([1, 2, 3], prior.domain.num_values, 0)
    *_, recorded = sample_level(prior, context, noise, SamplingConfig())
    sampler = LevelSampler(prior, context, noise, SamplingConfig(), None)
    for _ in range(prior.domain.num_values):
        sampler.step()
    assert torch.equal(recorded, sampler.codes.view_as(recorded))
