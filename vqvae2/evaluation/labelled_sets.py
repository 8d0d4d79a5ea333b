"""Labelled sets of images for classifiers: real, reconstructed, sampled, at full or half size.

Each set is a temporary file in the run folder, so memory does not grow with the number of images.
Several processes share the work, and each gets a file with all images.

Legend: `B N` images, `S` their side.
"""

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.data.images import ImageDataset
from vqvae2.data.order import inference_batch_size
from vqvae2.data.temporary import TemporaryImages
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import (
    dataset_images,
    on_host,
    reconstructed_images,
    sampled_images,
)
from vqvae2.metrics.classifier import LabelledImages


def real_set(evaluation: Evaluation, dataset: ImageDataset, indices: Tensor) -> TemporaryImages:
    """The images of indices (N,) of a data set, with their labels."""
    world = evaluation.world
    local = world.shard_nonempty(indices)
    batches = dataset_images(dataset, local, "images to classify", evaluation.progress)
    return stored(evaluation, batches, dataset.labels[indices], dataset.size, world)


def reconstructed_set(
    evaluation: Evaluation, dataset: ImageDataset, indices: Tensor
) -> TemporaryImages:
    """Reconstructions of the images of indices (N,), with their labels."""
    batches = on_host(reconstructed_images(evaluation, dataset, indices))
    labels = dataset.labels[indices]
    return stored(evaluation, batches, labels, dataset.size, evaluation.world)


def sampled_set(evaluation: Evaluation, labels: Tensor, seeds: Tensor) -> TemporaryImages:
    """One sample for each of labels (N,) and seeds (N,)."""
    batches = on_host(sampled_images(evaluation, labels, seeds))
    return stored(evaluation, batches, labels, evaluation.config.data.size, evaluation.world)


def halved(
    evaluation: Evaluation, dataset: LabelledImages, indices: Tensor | None = None
) -> TemporaryImages:
    """Some images, or all, at half of their sides: the means of 2x2 pixels."""
    chosen = torch.arange(len(dataset)) if indices is None else indices
    parts = chosen.split(inference_batch_size(dataset.size))
    batches = (
        F.avg_pool2d(dataset.batch(part).float(), 2).round().to(torch.uint8) for part in parts
    )
    # Every process has the complete data set.
    size, labels = dataset.size // 2, dataset.labels[chosen]
    return stored(evaluation, batches, labels, size, SINGLE_PROCESS)


def stored(
    evaluation: Evaluation, batches: Iterable[Tensor], labels: Tensor, size: int, world: World
) -> TemporaryImages:
    """All images of all processes in one file on each of them.

    Arguments:
        evaluation: the run, whose folder holds the file.
        batches: images (B, 3, S, S) uint8 of this process's shard of the set.
        labels: (N,), of the complete set.
        size: S.
        world: the processes that have a shard each.
    """
    images = TemporaryImages(evaluation.folder.path, labels, size)
    for indices, pixels in joint_batches(batches, torch.arange(len(labels)), size, world):
        images.write(indices, pixels)
    return images


def joint_batches(
    batches: Iterable[Tensor], indices: Tensor, size: int, world: World
) -> Iterator[tuple[Tensor, Tensor]]:
    """Indices (B,) and images of one batch of each process at a time, until none has more."""
    local, iterator = world.shard(indices), iter(batches)
    while True:
        images = next(iterator, None)
        if not world.any(images is not None):
            return
        if images is None:
            images = torch.empty(0, 3, size, size, dtype=torch.uint8)
        yield world.gather(local[: len(images)]), world.gather(images)
        local = local[len(images) :]
