"""Images as metrics take them, uint8 and a batch at a time: shown, restored or drawn.

Legend: `B` images, `S` their side.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, Progress, quiet
from vqvae2.data.order import inference_batch_size
from vqvae2.imaging.convert import to_float, to_uint8
from vqvae2.pipeline import Pipeline
from vqvae2.sampling import SamplingConfig

DRAWN_AT_ONCE = 256  # and fewer of images beyond 64 x 64


def shown(
    dataset: ImageDataset, indices: Tensor, name: str, progress: Progress = quiet
) -> Iterator[Tensor]:
    """Some images of a split, (B, 3, S, S) a batch."""
    done = 0
    for part in indices.split(inference_batch_size(dataset.size)):
        yield dataset.batch(part)
        done += len(part)
        progress(name, done, len(indices))


def restored(pipeline: Pipeline, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same images after the way through the codes, rounded as files are."""
    for images in batches:
        yield to_uint8(pipeline.reconstruct(to_float(images)))


def drawn(
    pipeline: Pipeline,
    labels: Tensor,
    seeds: Tensor,
    name: str,
    progress: Progress = quiet,
    sampling: Sequence[SamplingConfig] | None = None,
) -> Iterator[Tensor]:
    """A sample for each of labels (N,) and seeds (N,), rounded as files are."""
    done, numbers = 0, seeds.tolist()
    batch = min(DRAWN_AT_ONCE, 2 * inference_batch_size(pipeline.config.image_size))
    parts = pipeline.sample_batches(labels, numbers, sampling=sampling, batch=batch)
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
