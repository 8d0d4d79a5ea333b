"""Sampling the codes of one level, position by position.

Each image has its own seed and each of its levels a stream of uniform numbers made from that seed,
so image i is the same in any batch. `sample_codes` maps a uniform number to a code by inverting
the distribution function, so the sampler never waits for the device.

Legend: `B` batch, `K` codes, `H W` grid, `N` values per map: H W for codes, whose maps are
(B, H, W); 3 H W for pixels, whose maps are (B, H, W, 3).
"""

import math
from collections.abc import Hashable, Iterable, Iterator
from typing import SupportsIndex
from weakref import ref

import torch
from torch import Tensor

from vqvae2.priors import Domain, Prior
from vqvae2.randomness import generator
from vqvae2.sampling.config import SamplingConfig
from vqvae2.sampling.cuda_graphs import RecordingPool
from vqvae2.sampling.guidance import Guide, Mixture, guided_context
from vqvae2.sampling.inpaint import UNKNOWN
from vqvae2.transfers import to_device


def uniforms(seeds: Iterable[SupportsIndex], num_values: int, level: int) -> Tensor:
    """Uniform numbers (B, N), float64 in [0, 1): row i depends only on (seeds[i], level)."""
    rows = [
        torch.rand(num_values, generator=generator("codes", seed, level), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)


def sample_codes(
    logits: Tensor, uniform: Tensor, config: SamplingConfig, out: Tensor | None = None
) -> Tensor:
    """Samples one code per image by inverting the distribution function.

    Arguments:
        logits: (B, K).
        uniform: (B,) from `on_device`, one number per image, so that its code does not depend on
            the rest of the batch.
        config: how the distribution is changed first.
        out: receives the codes; None for a new tensor.

    Returns:
        Codes (B,) int64.
    """
    codes = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    codes = codes if out is None else out
    if config.temperature == 0:
        return torch.argmax(logits, dim=1, out=codes)
    scaled = logits.to(uniform.dtype)
    if config.temperature != 1:
        scaled = scaled / config.temperature
    cumulative = filter_logits(scaled, config).softmax(dim=1).cumsum(dim=1)
    values = uniform[:, None].contiguous()
    torch.searchsorted(cumulative, values, right=True, out=codes[:, None])
    return codes


def filter_logits(logits: Tensor, config: SamplingConfig) -> Tensor:
    """Logits (B, K) with -inf for the codes that top-k and top-p exclude."""
    if config.top_k is not None and config.top_k < logits.shape[1]:
        smallest = logits.topk(config.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if config.top_p < 1:
        descending, order = logits.sort(dim=1, descending=True)
        probabilities = descending.softmax(dim=1)
        # The probability before a code decides, so the most probable code is never excluded.
        excluded = probabilities.cumsum(dim=1) - probabilities >= config.top_p
        logits = logits.masked_fill(excluded.scatter(1, order, excluded), -math.inf)
    return logits


@torch.no_grad()
def sample_level(
    prior: Prior,
    context: Tensor,
    noise: Tensor,
    config: SamplingConfig,
    given: Tensor | None = None,
    mixture: Mixture | None = None,
) -> Iterator[Tensor]:
    """Samples the codes of one level, yielding the map (B, H, W) after each position.

    The map is one tensor that fills up; later positions hold `UNKNOWN`.

    Arguments:
        prior: in eval mode.
        context: from `prior.embed_context`.
        noise: (B, N) from `uniforms`.
        config: how the distributions are changed.
        given: (B, H, W) int64, codes to keep and `UNKNOWN` where to sample; None samples all.
            Sampled codes depend on the given codes before them in raster order.
        mixture: from `mixture_of` where the config asks for guidance, else None.
    """
    if prior.device.type == "cuda":
        yield from sample_recorded(prior, context, noise, config, given, mixture)
        return
    sampler = LevelSampler(prior, context, noise, config, given, mixture)
    for _ in range(prior.domain.num_values):
        sampler.step()
        yield sampler.codes.view(-1, *prior.domain.shape)


def sample_recorded(
    prior: Prior,
    context: Tensor,
    noise: Tensor,
    config: SamplingConfig,
    given: Tensor | None,
    mixture: Mixture | None,
) -> Iterator[Tensor]:
    """`sample_level` by CUDA graphs, which are kept for the next batch of the same size.

    The last map is a tensor of its own; those before it are overwritten by the next batch.
    """
    key, recording, is_used = POOL.take(
        prior,
        (len(noise), config, given is None),
        lambda: LevelSampler(prior, context, noise, config, given, mixture),
    )
    sampler = recording.actions
    if is_used:
        sampler.restart(context, noise, given, mixture)
    for _ in range(prior.domain.num_values - 1):
        recording.step()
        yield sampler.codes.view(-1, *prior.domain.shape)
    recording.step()
    codes = sampler.codes.clone().view(-1, *prior.domain.shape)
    POOL.give_back(prior, key, recording)  # not if the caller stops before: it may hold a map
    yield codes


class LevelSampler:
    """The state of sampling one level: the maps so far, the prior's cache, the position.

    Arguments: those of `sample_level`.
    """

    def __init__(
        self,
        prior: Prior,
        context: Tensor,
        noise: Tensor,
        config: SamplingConfig,
        given: Tensor | None,
        mixture: Mixture | None = None,
    ) -> None:
        device, domain, batch = prior.device, prior.domain, len(noise)
        self._prior, self.config = ref(prior), config
        self.noise = on_device(noise, device)
        self.codes = torch.full((batch, domain.num_values), UNKNOWN, device=device)
        self.given: Tensor | None = None
        if given is not None:
            self.given = check_given(given, batch, domain).flatten(1).to(device, copy=True)
        self.guide = None if mixture is None else Guide(mixture, config, domain)
        rows = guided_context(context, mixture, batch)
        self.cache = prior.new_cache(rows, len(rows))
        self.cache.context = self.cache.context.clone()
        self.previous = torch.zeros(batch, dtype=torch.int64, device=device)

    @property
    def prior(self) -> Prior:
        """The prior; the caller keeps it alive, since recordings outlive a call."""
        prior = self._prior()
        assert prior is not None, "the prior of a sampler is in use"
        return prior

    def restart(
        self, context: Tensor, noise: Tensor, given: Tensor | None, mixture: Mixture | None = None
    ) -> None:
        """Returns to the first position with another batch of the same size, in place."""
        self.noise.copy_(on_device(noise, self.noise.device))
        self.codes.fill_(UNKNOWN)
        if self.given is not None:
            assert given is not None
            self.given.copy_(check_given(given, len(noise), self.prior.domain).flatten(1))
        self.cache.context.copy_(guided_context(context, mixture, len(noise)))
        if self.guide is not None:
            assert mixture is not None
            self.guide.restart(mixture)
        self.prior.restart(self.cache)
        self.previous.zero_()

    def step(self) -> None:
        """Samples the next value of each map in place, without waiting for the device."""
        previous, guide, place = self.previous, self.guide, self.cache.newest
        logits = self.prior.step(
            self.cache, previous if guide is None else previous.repeat(guide.num_rows)
        )
        if guide is not None:
            logits, rows = guide.combine(logits, place)
        noise = self.noise.index_select(1, place)[:, 0]
        sample_codes(logits, noise, self.config, out=previous)
        if self.given is not None:
            given = self.given.index_select(1, place)[:, 0]
            previous.copy_(torch.where(given == UNKNOWN, previous, given))
        if guide is not None:
            guide.observe(rows, previous)
        self.codes.index_copy_(1, place, previous[:, None])

    @property
    def counters(self) -> tuple[int, ...]:
        """What the host counts: values and positions that are done."""
        return self.cache.index, self.cache.position.index

    @counters.setter
    def counters(self, counters: tuple[int, ...]) -> None:
        self.cache.index, self.cache.position.index = counters

    def phase(self) -> Hashable:
        """Identifies the operations of the next step; see `Prior.phase`."""
        return self.prior.phase(self.cache)

    def skip(self) -> None:
        """Advances the host's counters past a step that the device has replayed."""
        self.prior.skip(self.cache)


POOL: RecordingPool[LevelSampler] = RecordingPool()


def on_device(noise: Tensor, device: torch.device) -> Tensor:
    """Uniform numbers on a device, a little below 1.

    A cumulative sum of probabilities ends below 1 by its rounding error, and numbers above its end
    would give no code. They are float64, but float32 on Apple's GPUs, which have no other.
    """
    if device.type == "mps":
        return to_device(noise.clamp_max(1 - 2**-12).to(torch.float32), device)
    return to_device(noise.to(torch.float64).clamp_max(1 - 2**-30), device)


def check_given(given: Tensor, batch: int, domain: Domain) -> Tensor:
    """The given map (B, H, W) itself.

    Raises:
        ValueError: its shape or its codes do not fit the level.
    """
    expected = (batch, *domain.shape)
    if tuple(given.shape) != expected:
        raise ValueError(
            f"A given map of this level must have shape {expected}, got {tuple(given.shape)}."
        )
    num_codes = domain.grid.num_codes
    low, high = int(given.min()), int(given.max())
    if low < UNKNOWN or high >= num_codes:
        raise ValueError(
            f"Given codes must be in [0, {num_codes}), or {UNKNOWN} where a code is to be "
            f"sampled; got {low} to {high}."
        )
    return given
