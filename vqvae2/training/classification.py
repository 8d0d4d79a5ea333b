"""The classification accuracy score of a run (Sec. 4.3): who learns from what, asked about what.

    trained on      real pictures, their reconstructions, samples (one for each picture's class)
    asked about     real held-out pictures, their reconstructions

Everyone is the same network with the same training and the same number of pictures of each class.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.images import PictureData, Pictures, Progress, open_pictures, quiet
from vqvae2.data.order import spread
from vqvae2.metrics.classification_score import (
    LabelledPictures,
    PictureTensors,
    ScoreTraining,
    accuracy_by_class,
    in_batches,
    require_classes,
    train_on,
)
from vqvae2.pipeline import Pipeline
from vqvae2.ranks import ALONE, Ranks
from vqvae2.training.evaluate import provenance
from vqvae2.training.run import RunFolder
from vqvae2.training.streams import drawn, restored, seeds_within, shown


def evaluate_classification(
    folder: RunFolder,
    count: int,
    training: ScoreTraining,
    device: str = "cpu",
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Measures the score of a run; keeps it in metrics.json under "classification_score".

    Arguments:
        ranks: who shares the work, a classifier each; the first writes.
    """
    pipeline, run = Pipeline.load(folder.path).to(device), folder.read()
    data = open_pictures(run.data, progress=progress)
    figures = classification_scores(pipeline, data, count, training, progress, ranks)
    figures["provenance"] = provenance(run, pipeline, data.held_out, len(data.held_out))
    if ranks.first:
        folder.write_metrics({**folder.read_metrics(), "classification_score": figures})
    return figures


def classification_scores(
    pipeline: Pipeline,
    data: PictureData,
    count: int,
    training: ScoreTraining,
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Top-1 accuracy of three classifiers on two kinds of pictures, over all and by class.

    Arguments:
        count: pictures to train on, at most as many as there are; evenly spread.
    """
    classes, chosen = len(data.class_names), spread(len(data.train), count)
    labels = data.train.labels[chosen]
    require_classes(labels.bincount(minlength=classes))
    everything = torch.arange(len(data.held_out))
    asked: dict[str, LabelledPictures] = {
        "real": data.held_out,
        "reconstructions": restored_set(pipeline, data.held_out, everything, progress, ranks),
    }
    # Made one after the other, so that one set is in memory at a time.
    makers: Mapping[str, Callable[[], LabelledPictures]] = {
        "real": lambda: PictureTensors(data.train.batch(chosen), labels),
        "reconstructions": lambda: restored_set(pipeline, data.train, chosen, progress, ranks),
        "samples": lambda: drawn_set(pipeline, labels, seeds_within(labels), progress, ranks),
    }
    found = torch.zeros(len(makers), len(asked), 1 + classes, dtype=torch.float64)
    own: list[tuple[int, str, LabelledPictures]] = []
    for number, (name, make) in enumerate(makers.items()):
        pictures = make()  # by all ranks, then a classifier each
        if number % ranks.world == ranks.rank:
            own.append((number, name, pictures))
        del pictures
        while own and (ranks.world == 1 or number == len(makers) - 1):
            place, learnt, pictures = own.pop(0)
            device = str(pipeline.device)
            found[place] = scores_of(pictures, asked, classes, training, device, learnt, progress)
    rows = {
        name: {title: as_figures(score) for title, score in zip(asked, scores, strict=True)}
        for name, scores in zip(makers, ranks.sum(found), strict=True)
    }
    return {
        "num_pictures": len(chosen),
        "training": dataclasses.asdict(training),
        "class_names": list(data.class_names),
        "trained_on": rows,
    }


def scores_of(
    pictures: LabelledPictures,
    asked: Mapping[str, LabelledPictures],
    classes: int,
    training: ScoreTraining,
    device: str,
    name: str,
    progress: Progress,
) -> Tensor:
    """Top-1 accuracy of a classifier of `pictures` on each set of `asked`, (sets, 1 + K) float64.

    Of all, then by class; a class that is never asked about has nan.
    """
    model = train_on(
        pictures,
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


def as_figures(score: Tensor) -> dict[str, Any]:
    """A score (1 + K,) of `scores_of` as metrics.json keeps it; None for nan."""
    by_class = [None if math.isnan(share) else share for share in score[1:].tolist()]
    return {"top1": float(score[0]), "by_class": by_class}


def restored_set(
    pipeline: Pipeline,
    pictures: Pictures,
    indices: Tensor,
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> PictureTensors:
    """Some pictures after the way through the codes, with their labels."""
    originals = shown(pictures, ranks.share(indices), "reconstructions", progress)
    pixels = ranks.join(torch.cat(list(restored(pipeline, originals))))
    return PictureTensors(pixels, pictures.labels[indices])


def drawn_set(
    pipeline: Pipeline,
    labels: Tensor,
    seeds: Tensor,
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> PictureTensors:
    """A sample for each label and seed."""
    own = ranks.share(labels), ranks.share(seeds)
    parts = drawn(pipeline, *own, "samples to learn from", progress)
    return PictureTensors(ranks.join(torch.cat(list(parts))), labels)
