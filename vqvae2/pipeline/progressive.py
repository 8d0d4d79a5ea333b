"""Sampling that shows its images while they are drawn: coarse levels first, in raster order.

Legend: `B` batch, `C` image channels, `S` image side, `H W` code grid, `L` levels.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import SupportsIndex, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.pipeline.models import Label, Models
from vqvae2.pipeline.samples import Samples
from vqvae2.sampling import UNKNOWN, SamplingConfig


class StepOptions(TypedDict, total=False):
    """How images are drawn: `sampling` and `given` as of `Pipeline.sample`."""

    sampling: Sequence[SamplingConfig] | None
    given: Sequence[Tensor | None] | None


@dataclass(frozen=True)
class PartialSamples:
    """Images that are being drawn, all of them at the same position.

    Arguments:
        images: what is known of the images, (B, C, S, S) in [0, 1].
        level: the level that is being drawn, 0 is the coarsest.
        done: values drawn so far, per image.
        total: values to draw, per image.
        seconds: since the first value.
        samples: the images when they are complete, else None.
    """

    images: Tensor
    level: int
    done: int
    total: int
    seconds: float
    samples: Samples | None = None

    @property
    def values_per_second(self) -> float:
        """Values drawn per second, of all images."""
        return self.done * len(self.images) / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float:
        """Until the images are complete, at the speed so far."""
        return self.seconds * (self.total - self.done) / max(self.done, 1)


def sample_progressively(
    pipeline: Models,
    labels: Iterable[Label],
    seeds: Iterable[SupportsIndex] | None = None,
    *,
    interval_s: float = 0.25,
    **options: Unpack[StepOptions],
) -> Iterator[PartialSamples]:
    """Samples one batch of images, yielding what is known of them again and again.

    The last item holds the `Samples`, which equal those of `Pipeline.sample`. A caller that wants
    no more stops the iteration.

    Arguments:
        pipeline: with the priors of all levels.
        labels: one per image.
        seeds: one per image.
        interval_s: seconds between two items, at least.
        options: see `StepOptions`.
    """
    given = options.get("given")
    total = values_to_draw(pipeline, given)
    begin = last = time.perf_counter()
    done = 0
    steps = pipeline.sample_steps(labels, seeds, **options)
    for codes in steps:
        if isinstance(codes, Samples):
            seconds = time.perf_counter() - begin
            level = len(codes.codes) - 1
            yield PartialSamples(codes.images, level, total, total, seconds, codes)
            return
        level = len(codes) - 1
        if given is not None and given[level] is not None and not is_partial(given[level]):
            continue  # a level that is not drawn
        done += 1
        if (now := time.perf_counter()) - last >= interval_s and done < total:
            yield PartialSamples(preview(pipeline, codes), level, done, total, now - begin)
            last = time.perf_counter()


def values_to_draw(pipeline: Models, given: Sequence[Tensor | None] | None) -> int:
    """Values per image of the levels that are not given completely."""
    maps = given or [None] * len(pipeline.priors)
    return sum(
        prior.domain.num_values
        for prior, codes in zip(pipeline.priors, maps, strict=False)
        if codes is None or is_partial(codes)
    )


def is_partial(codes: Tensor | None) -> bool:
    """Whether a map has positions that are to be sampled."""
    return codes is not None and bool((codes == UNKNOWN).any())


@torch.no_grad()
def preview(pipeline: Models, codes: Sequence[Tensor]) -> Tensor:
    """What is known of images while their codes are drawn, (B, C, S, S) in [0, 1].

    Positions that are not drawn show what the coarser levels decode to, or grey.

    Arguments:
        pipeline: decodes.
        codes: (B, H, W) of the levels begun, coarsest first; the last may hold `UNKNOWN`.
    """
    level, newest = len(codes) - 1, codes[-1]
    known = newest != UNKNOWN
    maps = [*codes[:-1], continued(newest)]
    for prior in pipeline.priors[len(maps) :]:
        maps.append(newest.new_zeros(len(newest), *prior.domain.shape))
    images = pipeline.decode(maps, levels_up_to(pipeline, level))
    if known.all():
        return images
    visible = known if known.ndim == 3 else known.all(dim=-1)
    visible = F.interpolate(visible[:, None].float(), size=images.shape[2:]) > 0
    coarser = torch.full_like(images, 0.5)
    if level:
        coarser = pipeline.decode(maps, levels_up_to(pipeline, level - 1), "plain")
    return torch.where(visible, images, coarser)


def levels_up_to(pipeline: Models, level: int) -> list[int] | None:
    """The levels that a preview decodes; None for all, which both decoders can."""
    return None if level == len(pipeline.priors) - 1 else list(range(level + 1))


def continued(codes: Tensor) -> Tensor:
    """Codes (B, H, W, ...) whose unknown positions repeat the known code above them, or code 0."""
    rows = list(codes.unbind(dim=1))
    above = torch.zeros_like(rows[0])
    for index, row in enumerate(rows):
        above = rows[index] = torch.where(row == UNKNOWN, above, row)
    return torch.stack(rows, dim=1)
