"""Drawing codes: position by position within a level, level by level within a image.

Each image has a seed of its own and each level of it a stream of uniform numbers drawn from that
seed, so image i is the same in any batch. A number is inverted through the distribution of its
position (`likelihood.Categorical.sample`), so the sampler never waits for the device.

Legend: `B` batch, `H W` grid, `N` values a map: H W of codes, whose maps are (B, H, W); of pixels
3 H W, and their maps are (B, H, W, 3).
"""

import math
from collections.abc import Callable, Hashable, Iterator, Sequence

import torch
from torch import Tensor

from vqvae2.priors import Domain, Prior
from vqvae2.priors.likelihood import Categorical, SamplingConfig
from vqvae2.randomness import generator
from vqvae2.sampling.cuda_graphs import RecordedStep

UNKNOWN = -1
"""Marks the positions of a partly given map that are to be drawn."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of a image, in parts of its sides."""


def uniforms(seeds: Sequence[int], num_values: int, level: int) -> Tensor:
    """Noise (B, N), float64 in [0, 1): row i is a function of (seeds[i], level) alone."""
    rows = [
        torch.rand(num_values, generator=generator("codes", seed, level), dtype=torch.float64)
        for seed in seeds
    ]
    return torch.stack(rows)


@torch.no_grad()
def sample_level(
    prior: Prior, context: Tensor, noise: Tensor, draw: SamplingConfig, given: Tensor | None = None
) -> Iterator[Tensor]:
    """Draws the codes of one level, yielding the map (B, H, W) after each position.

    The map is one tensor that fills up; positions to come hold `UNKNOWN`.

    Arguments:
        prior: in eval mode.
        context: from `prior.embed_context`.
        noise: (B, N) from `uniforms`.
        given: (B, H, W) int64 codes to keep, `UNKNOWN` where to draw; None draws all. What is
            drawn sees the given codes before it in raster order, as the prior's conditionals do.
    """
    drawing = LevelSampler(prior, context, noise, draw, given)
    step: Callable[[], None] = drawing.step
    if prior.device.type == "cuda":
        step = RecordedStep(drawing.step, drawing.phase, drawing.skip, prior.device)
    for _ in range(prior.domain.num_values):
        step()
        yield drawing.codes.view(-1, *prior.domain.shape)


class LevelSampler:
    """The maps of one level while they fill up; `step` draws the next value of each.

    Arguments: as of `draw_level`.
    """

    def __init__(
        self,
        prior: Prior,
        context: Tensor,
        noise: Tensor,
        draw: SamplingConfig,
        given: Tensor | None,
    ) -> None:
        device, domain, batch = prior.device, prior.domain, len(noise)
        self.prior, self.draw = prior, draw
        # Apple's GPUs have no float64; elsewhere the noise keeps it.
        self.noise = noise.to(device, torch.float32 if device.type == "mps" else torch.float64)
        self.codes = torch.full((batch, domain.num_values), UNKNOWN, device=device)
        self.known = self.codes.clone()
        if given is not None:
            self.known.copy_(check_given(given, batch, domain).flatten(1))
        self.cache = prior.new_cache(context, batch)
        self.previous = torch.zeros(batch, dtype=torch.int64, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)

    def step(self) -> None:
        """Draws one value of each map, in place; the host waits for nothing."""
        logits = self.prior.step(self.cache, self.previous)
        noise = self.noise.index_select(1, self.position)[:, 0]
        fixed = self.known.index_select(1, self.position)[:, 0]
        drawn = Categorical.sample(logits, noise, self.draw)
        self.previous.copy_(torch.where(fixed == UNKNOWN, drawn, fixed))
        self.codes.index_copy_(1, self.position, self.previous[:, None])
        self.position += 1

    def phase(self) -> Hashable:
        """What the next step is made of; see `Prior.phase`."""
        return self.prior.phase(self.cache)

    def skip(self) -> None:
        """Counts a step that the device did by itself."""
        self.prior.skip(self.cache)


def iterate_hierarchy(
    priors: Sequence[Prior],
    labels: Tensor,
    seeds: Sequence[int],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None = None,
) -> Iterator[list[Tensor]]:
    """Draws codes of all levels, coarsest first, yielding the maps begun after each position.

    The last list yielded is complete: (B, H, W) int64 a level. `sample_hierarchy` returns it.

    Arguments:
        priors: one a level, coarsest first, in eval mode.
        labels: (B,) int64.
        seeds: B numbers; the same seed and label give the same codes in any batch.
        draws: one a level.
        given: per level a map to keep in part or whole (see `draw_level`), or None. A level given
            whole is not drawn: keep the coarsest and redraw the others to get variations.
    """
    check_request(priors, labels, seeds, sampling, given)
    maps: list[Tensor] = []
    for level, (prior, draw) in enumerate(zip(priors, sampling, strict=True)):
        known = None if given is None else given[level]
        labels = labels.to(prior.device)
        if known is not None and not (known == UNKNOWN).any():
            maps.append(check_given(known, len(seeds), prior.domain).to(labels))
            yield maps
            continue
        prior.domain.check(labels, maps)
        with torch.no_grad():
            context = prior.embed_context(labels, maps)
        noise = uniforms(seeds, prior.domain.num_values, level)
        maps.append(torch.empty(0))
        for codes in sample_level(prior, context, noise, draw, known):
            maps[-1] = codes
            yield maps


def sample_hierarchy(
    priors: Sequence[Prior],
    labels: Tensor,
    seeds: Sequence[int],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Codes of all levels, (B, H, W) int64 each, coarsest first; see `draw_hierarchy`."""
    maps: list[Tensor] = []
    for maps in iterate_hierarchy(priors, labels, seeds, sampling, given):  # noqa: B007
        pass
    return maps


def erase(codes: Tensor, box: Box) -> Tensor:
    """A map (B, H, W, ...) with `UNKNOWN` where the box covers any of a position."""
    rows, columns = covered(box, *codes.shape[1:3])
    erased = codes.clone()
    erased[:, rows, columns] = UNKNOWN
    return erased


def covered(box: Box, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of an H x W grid that the box covers any of."""
    left, top, right, bottom = box
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(
            f"A box is left, top, right, bottom in parts of the sides, 0 <= left < right <= 1 and "
            f"0 <= top < bottom <= 1; got {', '.join(f'{side:g}' for side in box)}."
        )
    rows = slice(math.floor(top * height), math.ceil(bottom * height))
    return rows, slice(math.floor(left * width), math.ceil(right * width))


def check_given(given: Tensor, batch: int, domain: Domain) -> Tensor:
    """The given map (B, H, W) itself, or a ValueError that says what does not fit."""
    expected = (batch, *domain.shape)
    if tuple(given.shape) != expected:
        raise ValueError(
            f"A given map of this level must have shape {expected}, got {tuple(given.shape)}."
        )
    low, high = int(given.min()), int(given.max())
    if low < UNKNOWN or high >= domain.num_codes:
        raise ValueError(
            f"Given codes must be in [0, {domain.num_codes}), or {UNKNOWN} where a code is to be "
            f"drawn; got {low} to {high}."
        )
    return given


def check_request(
    priors: Sequence[Prior],
    labels: Tensor,
    seeds: Sequence[int],
    sampling: Sequence[SamplingConfig],
    given: Sequence[Tensor | None] | None,
) -> None:
    """Raises ValueError unless there is a seed a label, and a draw and a given map a level."""
    if given is not None and len(given) != len(priors):
        raise ValueError(
            f"Expected one given map, or None, a level ({len(priors)} levels), got {len(given)}."
        )
    if len(seeds) != len(labels):
        raise ValueError(
            f"Expected one seed a image, got {len(seeds)} seeds for {len(labels)} labels."
        )
    if len(sampling) != len(priors):
        raise ValueError(
            f"Expected one way to draw a level ({len(priors)} levels), got {len(sampling)}."
        )
