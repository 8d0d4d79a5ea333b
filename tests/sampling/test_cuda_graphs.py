from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from prior_cases import CONFIGS, DOMAINS, inputs, make

from vqvae2.sampling import LevelSampler, SamplingConfig, sample_level, uniforms
from vqvae2.sampling.cuda_graphs import RecordedStep


class FakeGraph:
    """Replaces a CUDA graph: the device part runs at a replay, the host part at recording."""

    def replay(self) -> None:
        self.device_part()


@pytest.mark.parametrize("architecture", ["plain", "pixelcnnpp"])
@torch.no_grad()
def test_recording_and_replaying_advance_the_cache_as_steps_do(architecture, monkeypatch):
    """With a fake device: a replay does the work of the recorded phase only."""
    prior = make("1-level", architecture)
    context = prior.embed_context(torch.zeros(1, dtype=torch.int64), [])
    sampler = LevelSampler(prior, context, uniforms([1], 64, 0), SamplingConfig(), None)
    cache, executed = sampler.cache, []

    def action() -> None:
        phase = prior.phase(cache)
        if recording:
            recording[-1].device_part = lambda: executed.append(phase)
        else:
            executed.append(phase)
        prior.skip(cache)

    recording: list[FakeGraph] = []

    @contextmanager
    def graph(made, **_):
        recording.append(made)
        yield
        recording.clear()

    fake = SimpleNamespace(
        CUDAGraph=FakeGraph, graph=graph, device=nullcontext, graph_pool_handle=lambda: None,
        Stream=lambda device: None,
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", fake)
    step = RecordedStep(action, prior, cache)
    expected = []
    for _ in range(32):
        expected.append(prior.phase(cache))
        step()
    assert executed == expected
    assert cache.index == cache.position.index == 32


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
