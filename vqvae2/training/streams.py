"""Pictures as metrics take them, uint8 and a batch at a time: shown, restored or drawn.

Legend: `B` pictures, `S` their side.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vqvae2.data.images import Pictures, Progress, quiet
from vqvae2.data.order import at_once
from vqvae2.likelihood import Draw
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import to_float, to_uint8

DRAWN_AT_ONCE = 256  # and fewer of pictures beyond 64 x 64


def shown(
    pictures: Pictures, indices: Tensor, name: str, progress: Progress = quiet
) -> Iterator[Tensor]:
    """Some pictures of a split, (B, 3, S, S) a batch."""
    done = 0
    for part in indices.split(at_once(pictures.size)):
        yield pictures.batch(part)
        done += len(part)
        progress(name, done, len(indices))


def restored(pipeline: Pipeline, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same pictures after the way through the codes, rounded as files are."""
    for images in batches:
        yield to_uint8(pipeline.reconstruct(to_float(images)))


def drawn(
    pipeline: Pipeline,
    labels: Tensor,
    seeds: Tensor,
    name: str,
    progress: Progress = quiet,
    draws: Sequence[Draw] | None = None,
) -> Iterator[Tensor]:
    """A sample for each of labels (N,) and seeds (N,), rounded as files are."""
    done, numbers = 0, seeds.tolist()
    batch = min(DRAWN_AT_ONCE, 2 * at_once(pipeline.config.image_size))
    parts = pipeline.sample_batches(labels, numbers, draws=draws, batch=batch)
    for part in parts:
        yield to_uint8(part.images)
        done += len(part.images)
        progress(name, done, len(labels))


def seeds_within(labels: Tensor) -> Tensor:
    """Seeds 0, 1, ... of each class for labels (N,), in their order."""
    seeds = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        seeds[members] = torch.arange(int(members.sum()))
    return seeds
