"""Sampling the codes of one level, position by position.

Each image has its own seed and each of its levels a stream of uniform numbers made from that seed,
so image i is the same in any batch. `sample_codes` maps a uniform number to a code by inverting
the distribution function, so the sampler never waits for the device.

Legend: `B` batch, `K` codes, `H W` grid, `N` values per map: H W for codes, whose maps are
(B, H, W); 3 H W for pixels, whose maps are (B, H, W, 3).
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import SupportsIndex

import torch
from torch import Tensor

from vqvae2.priors import Domain, Prior
from vqvae2.randomness import generator
from vqvae2.sampling.config import SamplingConfig
from vqvae2.sampling.cuda_graphs import RecordedStep
from vqvae2.sampling.inpaint import UNKNOWN


def uniforms(seeds: Iterable[SupportsIndex], num_values: int, level: int) -> Tensor:
    """Uniform numbers (B, N), float64 in [0, 1): row i depends only on (seeds[i], level)."""
    rows = [
        torch.rand(num_values, generator=generator("codes", seed, level), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)


def sample_codes(logits: Tensor, uniform: Tensor, config: SamplingConfig) -> Tensor:
    """Samples one code per image by inverting the distribution function.

    Arguments:
        logits: (B, K).
        uniform: (B,) in [0, 1), float64 where the device has it: one number per image, so that
            its code does not depend on the rest of the batch.
        config: how the distribution is changed first.

    Returns:
        Codes (B,) int64.
    """
    if config.temperature == 0:
        return logits.argmax(dim=1)
    scaled = logits.to(uniform.dtype) / config.temperature
    cumulative = filter_logits(scaled, config).softmax(dim=1).cumsum(dim=1)
    total = cumulative[:, -1:].contiguous()
    codes = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
    # uniform < 1, but its product with the total may round up to the total: that gives the last
    # code of nonzero probability.
    return torch.minimum(codes, torch.searchsorted(cumulative, total))[:, 0]


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
    """
    sampler = LevelSampler(prior, context, noise, config, given)
    step: Callable[[], None] = sampler.step
    if prior.device.type == "cuda":
        step = RecordedStep(sampler.step, prior, sampler.cache)
    for _ in range(prior.domain.num_values):
        step()
        yield sampler.codes.view(-1, *prior.domain.shape)


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
    ) -> None:
        device, domain, batch = prior.device, prior.domain, len(noise)
        self.prior, self.config = prior, config
        # Apple's GPUs have no float64; on other devices the noise stays in it.
        self.noise = noise.to(device, torch.float32 if device.type == "mps" else torch.float64)
        self.codes = torch.full((batch, domain.num_values), UNKNOWN, device=device)
        self.given = self.codes.clone()
        if given is not None:
            self.given.copy_(check_given(given, batch, domain).flatten(1))
        self.cache = prior.new_cache(context, batch)
        self.previous = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)

    def step(self) -> None:
        """Samples the next value of each map in place, without waiting for the device."""
        logits = self.prior.step(self.cache, self.previous)
        noise = self.noise.index_select(1, self.position)[:, 0]
        given = self.given.index_select(1, self.position)[:, 0]
        samples = sample_codes(logits, noise, self.config)
        self.previous.copy_(torch.where(given == UNKNOWN, samples, given))
        self.codes.index_copy_(1, self.position, self.previous[:, None])
        self.position += 1


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
