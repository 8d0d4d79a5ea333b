"""Images as metrics take them, uint8 in batches: of a data set, reconstructed, or sampled.

Legend: `B N` images, `S` their side, `K` classes.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, Progress
from vqvae2.data.order import inference_batch_size
from vqvae2.imaging.convert import to_float, to_uint8
from vqvae2.pipeline import Pipeline
from vqvae2.sampling import SamplingConfig

SAMPLING_BATCH = 256  # smaller for images beyond 64 x 64


def dataset_images(dataset: ImageDataset, indices: Tensor) -> Iterator[Tensor]:
    """The images of indices (N,), in batches (B, 3, S, S)."""
    for part in indices.split(inference_batch_size(dataset.size)):
        yield dataset.batch(part)


def reconstructed_images(pipeline: Pipeline, batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Reconstructions of batches (B, 3, S, S) uint8, rounded as files are."""
    for images in batches:
        yield to_uint8(pipeline.reconstruct(to_float(images)))


def sampled_images(
    pipeline: Pipeline,
    labels: Tensor,
    seeds: Tensor,
    sampling: Sequence[SamplingConfig] | None = None,
) -> Iterator[Tensor]:
    """One sample (B, 3, S, S) for each of labels (N,) and seeds (N,), rounded as files are."""
    batch = min(SAMPLING_BATCH, 2 * inference_batch_size(pipeline.config.image_size))
    batches = pipeline.sample_batches(labels, seeds.tolist(), sampling=sampling, batch=batch)
    for samples in batches:
        yield to_uint8(samples.images)


def tracked(
    batches: Iterable[Tensor], title: str, total: int, progress: Progress
) -> Iterator[Tensor]:
    """The same batches; reports the number of images done after each."""
    done = 0
    for images in batches:
        yield images
        done += len(images)
        progress(title, done, total)


def sample_seeds(labels: Tensor, num_classes: int) -> Tensor:
    """A seed for each of labels (N,): no two are equal, so all samples have independent noise.

    The n-th sample of class c has seed n K + c, however many samples there are.
    """
    return index_in_class(labels) * num_classes + labels


def index_in_class(labels: Tensor) -> Tensor:
    """The number of earlier labels of the same class, (N,) int64, for each of labels (N,)."""
    indices = torch.empty_like(labels)
    for label in labels.unique():
        members = labels == label
        indices[members] = torch.arange(int(members.sum()))
    return indices
