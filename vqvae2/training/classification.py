"""The classification accuracy score of a run (Sec. 4.3): who learns from what, asked about what.

    trained on      real pictures, their reconstructions, samples (one for each picture's class)
    asked about     real held-out pictures, their reconstructions

Everyone is the same network with the same training and the same number of pictures of each class.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from vqvae2.data.images import PictureData, open_pictures
from vqvae2.data.order import at_once, spread
from vqvae2.metrics.classification_score import (
    LabelledPictures,
    PictureTensors,
    ScoreTraining,
    accuracy_by_class,
    in_batches,
    train_on,
)
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import to_float, to_uint8
from vqvae2.training.evaluate import provenance
from vqvae2.training.run import RunFolder

Progress = Callable[[str, int, int], None]


def evaluate_classification(
    folder: RunFolder,
    count: int,
    training: ScoreTraining,
    device: str = "cpu",
    progress: Progress = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measures the score of a run; keeps it in metrics.json."""
    pipeline, run = Pipeline.load(folder.path).to(device), folder.read()
    data = open_pictures(run.data, progress=progress)
    figures = classification_scores(pipeline, data, count, training, device, progress)
    figures["provenance"] = provenance(run, data.held_out, len(data.held_out))
    folder.write_metrics({**folder.read_metrics(), "classification_score": figures})
    return figures


def classification_scores(
    pipeline: Pipeline,
    data: PictureData,
    count: int,
    training: ScoreTraining,
    device: str = "cpu",
    progress: Progress = lambda text, done, total: None,
) -> dict[str, Any]:
    """All figures, as metrics.json keeps them.

    Arguments:
        count: pictures to train on, at most as many as there are; evenly spread.
    """
    classes = len(data.class_names)
    if classes < 2:
        raise ValueError(
            f"The classification accuracy score needs pictures of at least 2 classes, got "
            f"{classes}; sort them into a sub-folder a class."
        )
    chosen = spread(len(data.train), count)
    asked: dict[str, LabelledPictures] = {
        "real": data.held_out,
        "reconstructions": restored(
            pipeline, data.held_out, torch.arange(len(data.held_out)), progress
        ),
    }
    # Made one after the other, so that one set is in memory at a time.
    makers: Mapping[str, Callable[[], LabelledPictures]] = {
        "real": lambda: PictureTensors(data.train.batch(chosen), data.train.labels[chosen]),
        "reconstructions": lambda: restored(pipeline, data.train, chosen, progress),
        "samples": lambda: sampled(pipeline, data.train.labels[chosen], progress),
    }
    rows = {
        name: scores_of(make(), asked, classes, training, device, name, progress)
        for name, make in makers.items()
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
) -> dict[str, Any]:
    """Top-1 accuracy on each set of `asked` of a classifier of `pictures`; also by class."""
    model = train_on(
        pictures,
        classes,
        training,
        device,
        lambda step: progress(f"learning from {name}", step, training.steps),
    )
    found = {}
    for title, others in asked.items():
        every = torch.arange(len(others))
        by_class = accuracy_by_class(model, in_batches(others, every), classes)
        counts = others.labels.bincount(minlength=classes)
        right = by_class.nan_to_num() @ counts.double()
        found[title] = {"top1": float(right / counts.sum()), "by_class": by_class.tolist()}
    return found


def restored(
    pipeline: Pipeline, pictures: LabelledPictures, indices: torch.Tensor, progress: Progress
) -> PictureTensors:
    """Some pictures after the way through the codes, rounded to uint8 as files are."""
    parts, done = [], 0
    side = pipeline.config.image_size
    for part in indices.split(at_once(side)):
        parts.append(to_uint8(pipeline.reconstruct(to_float(pictures.batch(part)))))
        done += len(part)
        progress("reconstructions", done, len(indices))
    return PictureTensors(torch.cat(parts), pictures.labels[indices])


def sampled(
    pipeline: Pipeline,
    labels: torch.Tensor,
    progress: Progress,
    seeds: torch.Tensor | None = None,
    batch: int = 256,
) -> PictureTensors:
    """One sample for each label, with seeds 0, 1, ... unless given."""
    numbers = None if seeds is None else seeds.tolist()
    parts, done = [], 0
    for part in pipeline.sample_batches(labels, numbers, batch=batch):
        parts.append(to_uint8(part.images))
        done += len(part.images)
        progress("samples", done, len(labels))
    return PictureTensors(torch.cat(parts), labels)
