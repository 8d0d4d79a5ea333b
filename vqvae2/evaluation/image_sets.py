"""Images as metrics take them, uint8 in batches: of a data set, reconstructed, or sampled.

Legend: `B N` images, `S` their side, `K` classes.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, Progress
from vqvae2.data.order import inference_batch_size
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.imaging.convert import rounded
from vqvae2.sampling import SamplingConfig
from vqvae2.transfers import arrivals

SAMPLING_BATCH = 256  # smaller for images beyond 64 x 64


def dataset_images(
    dataset: ImageDataset, indices: Tensor, title: str, progress: Progress
) -> Iterator[Tensor]:
    """The images of indices (N,), in batches (B, 3, S, S)."""
    parts = indices.split(inference_batch_size(dataset.size))
    return tracked(map(dataset.batch, parts), title, len(indices), progress)


def reconstructed_images(
    evaluation: Evaluation, dataset: ImageDataset, indices: Tensor, title: str = "reconstructions"
) -> Iterator[Tensor]:
    """Reconstructions (B, 3, S, S) of this process's part of indices (N,), rounded as in files.

    They are on the device of the models.
    """
    local, pipeline = evaluation.world.shard_nonempty(indices), evaluation.pipeline
    images = dataset.batches(local, evaluation.device)
    reconstructions = (rounded(pipeline.reconstruct_batch(batch)) for batch in images)
    return tracked(reconstructions, title, len(local), evaluation.progress)


def sampled_images(
    evaluation: Evaluation,
    labels: Tensor,
    seeds: Tensor,
    sampling: Sequence[SamplingConfig] | None = None,
    title: str = "samples",
) -> Iterator[Tensor]:
    """Samples (B, 3, S, S) on the device of the models, rounded as files are.

    Arguments:
        evaluation: the run.
        labels: (N,), of which this process samples its part.
        seeds: (N,).
        sampling: settings of each level; those of the run by default.
        title: of the progress.
    """
    pipeline, world = evaluation.pipeline, evaluation.world
    local, local_seeds = world.shard_nonempty(labels), world.shard_nonempty(seeds).tolist()
    size = min(SAMPLING_BATCH, 2 * inference_batch_size(pipeline.config.image_size))
    batches = pipeline.sample_batches(local, local_seeds, sampling=sampling, batch=size)
    samples = (rounded(batch.images) for batch in batches)
    return tracked(samples, title, len(local), evaluation.progress)


def on_host(batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same batches on the CPU, read when the device has the work of the next one."""
    return (images for (images,) in arrivals([batch] for batch in batches))


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
