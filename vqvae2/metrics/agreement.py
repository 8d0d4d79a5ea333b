"""Do samples show the class that was asked for? A classifier trained on the images judges.

The same classifier on validation images and on their reconstructions says what could be expected.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.data.images import ImageSplits
from vqvae2.metrics.classifier import accuracy, labelled, train_classifier
from vqvae2.pipeline import Pipeline


@dataclass(frozen=True)
class Agreement:
    """Shares of right answers, in [0, 1]."""

    on_images: float
    on_reconstructions: float
    on_samples: float
    num_samples: int


def class_agreement(
    pipeline: Pipeline, data: ImageSplits, samples_a_class: int = 25, steps: int = 500
) -> Agreement:
    """Trains a classifier on `data.train` and asks it about validation images and samples."""
    classes = len(data.class_names)
    if classes < 2:
        raise ValueError(
            f"Judging classes needs images of at least 2 classes, got {classes}; "
            "sort the images into a sub-folder a class."
        )
    judge = train_classifier(data.train, classes, steps)
    labels = torch.arange(classes).repeat_interleave(samples_a_class)
    samples = pipeline.sample(labels, list(range(len(labels))))
    limit = 1000

    def reconstructed() -> Iterator[tuple[Tensor, Tensor]]:
        for images, truth in labelled(data.validation, limit):
            yield pipeline.reconstruct(images).cpu(), truth

    return Agreement(
        on_images=accuracy(judge, labelled(data.validation, limit)),
        on_reconstructions=accuracy(judge, reconstructed()),
        on_samples=accuracy(judge, iter([(samples.images.cpu(), samples.labels)])),
        num_samples=len(labels),
    )
