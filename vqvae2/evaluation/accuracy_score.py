"""The classification accuracy score of a run (Sec. 4.3): who learns from what, asked about what.

    trained on      real images, their reconstructions, samples (one for each image's class)
    asked about     real validation images, their reconstructions

Everyone is the same network with the same training and the same number of images of each class.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, ImageSplits, Progress, open_images, quiet
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.evaluation.evaluation import provenance
from vqvae2.evaluation.image_sets import drawn, restored, seeds_within, shown
from vqvae2.metrics.accuracy_score import (
    ClassifierTraining,
    ImagesInMemory,
    LabelledImages,
    accuracy_by_class,
    in_batches,
    require_classes,
    train_on,
)
from vqvae2.metrics.results import AccuracyScore, ClassAccuracy
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder


def evaluate_classification(
    folder: RunFolder,
    count: int,
    training: ClassifierTraining,
    device: str = "cpu",
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> AccuracyScore:
    """Measures the score of a run and writes it into metrics.json.

    Arguments:
        ranks: who shares the work, a classifier each; the first writes.
    """
    pipeline, run = Pipeline.open(folder.path).to(device), folder.read()
    data = open_images(run.data, progress=progress)
    score = classification_scores(pipeline, data, count, training, progress, world)
    origin = provenance(run, pipeline, data.validation, len(data.validation))
    score = dataclasses.replace(score, provenance=origin)
    if world.is_main:
        metrics = dataclasses.replace(folder.read_metrics(), accuracy_score=score)
        folder.write_metrics(metrics)
    return score


def classification_scores(
    pipeline: Pipeline,
    data: ImageSplits,
    count: int,
    training: ClassifierTraining,
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> AccuracyScore:
    """Top-1 accuracy of three classifiers on two kinds of images, over all and by class.

    Arguments:
        count: images to train on, at most as many as there are; evenly spread.
    """
    classes, chosen = len(data.class_names), evenly_spaced(len(data.train), count)
    labels = data.train.labels[chosen]
    require_classes(labels.bincount(minlength=classes))
    everything = torch.arange(len(data.validation))
    asked: dict[str, LabelledImages] = {
        "real": data.validation,
        "reconstructions": restored_set(pipeline, data.validation, everything, progress, world),
    }
    # Made one after the other, so that one set is in memory at a time.
    makers: Mapping[str, Callable[[], LabelledImages]] = {
        "real": lambda: ImagesInMemory(data.train.batch(chosen), labels),
        "reconstructions": lambda: restored_set(pipeline, data.train, chosen, progress, world),
        "samples": lambda: drawn_set(pipeline, labels, seeds_within(labels), progress, world),
    }
    found = torch.zeros(len(makers), len(asked), 1 + classes, dtype=torch.float64)
    own: list[tuple[int, str, LabelledImages]] = []
    for number, (name, make) in enumerate(makers.items()):
        dataset = make()  # by all ranks, then a classifier each
        if number % world.size == world.rank:
            own.append((number, name, dataset))
        del dataset
        while own and (world.size == 1 or number == len(makers) - 1):
            place, learnt, dataset = own.pop(0)
            device = str(pipeline.device)
            found[place] = scores_of(dataset, asked, classes, training, device, learnt, progress)
    rows = {
        name: {title: class_accuracy(score) for title, score in zip(asked, scores, strict=True)}
        for name, scores in zip(makers, world.sum(found), strict=True)
    }
    return AccuracyScore(len(chosen), training, data.class_names, rows)


def scores_of(
    dataset: LabelledImages,
    asked: Mapping[str, LabelledImages],
    classes: int,
    training: ClassifierTraining,
    device: str,
    name: str,
    progress: Progress,
) -> Tensor:
    """Top-1 accuracy of a classifier of `images` on each set of `asked`, (sets, 1 + K) float64.

    Of all, then by class; a class that is never asked about has nan.
    """
    model = train_on(
        dataset,
        classes,
        training,
        device,
        lambda step: progress(f"learning from {name}", step, training.steps),
    )
    found = []
    for others in asked.values():
        every = torch.arange(len(others))
        by_class = accuracy_by_class(model, in_batches(others, every), classes)
        counts = others.labels.bincount(minlength=classes)
        right = by_class.nan_to_num() @ counts.double()
        found.append(torch.cat([(right / counts.sum())[None], by_class]))
    return torch.stack(found)


def class_accuracy(score: Tensor) -> ClassAccuracy:
    """A score (1 + K,) of `scores_of` with None for NaN."""
    by_class = (None if math.isnan(share) else share for share in score[1:].tolist())
    return ClassAccuracy(float(score[0]), tuple(by_class))


def restored_set(
    pipeline: Pipeline,
    dataset: ImageDataset,
    indices: Tensor,
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> ImagesInMemory:
    """Some images after the way through the codes, with their labels."""
    originals = shown(dataset, world.shard_nonempty(indices), "reconstructions", progress)
    pixels = world.gather(torch.cat(list(restored(pipeline, originals))))
    return ImagesInMemory(pixels, dataset.labels[indices])


def drawn_set(
    pipeline: Pipeline,
    labels: Tensor,
    seeds: Tensor,
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> ImagesInMemory:
    """A sample for each label and seed."""
    own = world.shard_nonempty(labels), world.shard_nonempty(seeds)
    parts = drawn(pipeline, *own, "samples to learn from", progress)
    return ImagesInMemory(world.gather(torch.cat(list(parts))), labels)
