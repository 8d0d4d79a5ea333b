"""Sampling the codes of all levels, coarsest first.

Legend: `B` batch, `H W` grid.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from vqvae2.priors import Prior
from vqvae2.randomness import integers
from vqvae2.sampling.config import SamplingConfig
from vqvae2.sampling.guidance import mixture_of, require_guidable
from vqvae2.sampling.inpaint import UNKNOWN
from vqvae2.sampling.level import check_given, sample_level, uniforms
from vqvae2.transfers import to_device


def iterate_hierarchy(
    priors: Sequence[Prior],
    labels: Iterable[SupportsIndex],
    seeds: Iterable[SupportsIndex],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None = None,
) -> Iterator[list[Tensor]]:
    """Samples codes of all levels, yielding the maps of the levels begun after each position.

    The last list is complete: (B, H, W) int64 per level. `sample_hierarchy` returns it.

    Arguments:
        priors: one per level, coarsest first, in eval mode.
        labels: B integers.
        seeds: B integers; the same seed and label give the same codes in any batch.
        sampling: one per level.
        given: one map per level (see `sample_level`) or None. A level whose map is complete is not
            sampled: give the coarsest level to get variations of an image.
    """
    ids = torch.tensor(integers(labels, "Labels"), dtype=torch.int64)
    seeds = integers(seeds, "Seeds")
    check_request(priors, ids, seeds, sampling, given)
    maps: list[Tensor] = []
    for level, (prior, config) in enumerate(zip(priors, sampling, strict=True)):
        given_map = None if given is None else given[level]
        ids = to_device(ids, prior.device)
        if given_map is not None and not (given_map == UNKNOWN).any():
            maps.append(check_given(given_map, len(seeds), prior.domain).to(ids))
            yield maps
            continue
        with torch.no_grad():
            context = prior.embed_context(ids, maps)
        mixture = mixture_of(priors[: level + 1], maps, config, len(seeds))
        noise = uniforms(seeds, prior.domain.num_values, level)
        maps.append(torch.empty(0))
        for codes in sample_level(prior, context, noise, config, given_map, mixture):
            maps[-1] = codes
            yield maps


def sample_hierarchy(
    priors: Sequence[Prior],
    labels: Iterable[SupportsIndex],
    seeds: Iterable[SupportsIndex],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Codes of all levels, (B, H, W) int64 each, coarsest first; see `iterate_hierarchy`."""
    *_, maps = iterate_hierarchy(priors, labels, seeds, sampling, given)
    return maps


def check_request(
    priors: Sequence[Prior],
    labels: Tensor,
    seeds: Sequence[int],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None,
) -> None:
    """Raises ValueError unless there is one seed per label and one of the rest per level."""
    for name, items in (("given map, or None,", given), ("sampling config", sampling)):
        if items is not None and len(items) != len(priors):
            raise ValueError(
                f"Expected one {name} per level ({len(priors)} levels), got {len(items)}."
            )
    if len(seeds) != len(labels):
        raise ValueError(
            f"Expected one seed per image, got {len(seeds)} seeds for {len(labels)} labels."
        )
    grids = tuple(prior.domain.grid for prior in priors)
    for level, (prior, config) in enumerate(zip(priors, sampling, strict=True)):
        prior.domain.check_labels(labels)
        if prior.domain.coarser != grids[:level]:
            raise ValueError(
                f"The prior of level {level} is conditioned on codes of grids "
                f"{', '.join(map(str, prior.domain.coarser)) or 'none'}, coarsest first, and the "
                f"coarser priors sample {', '.join(map(str, grids[:level])) or 'none'}."
            )
        given_map = None if given is None else given[level]
        if given_map is None or (given_map == UNKNOWN).any():
            require_guidable(prior.domain, config, level)
