"""Whether samples show the requested class, as a classifier of the run's images predicts it.

The accuracy of the same classifier on validation images and on their reconstructions is the scale.
Images are halved first: a class is a shape, and a classifier of full resolution would also judge
how sharp the texture is.
"""

from dataclasses import replace

import torch

from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.accuracy_score import classifier_accuracies
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.labelled_sets import halved, reconstructed_set, sampled_set
from vqvae2.metrics.classifier import ClassifierTraining, require_classes
from vqvae2.metrics.results import ClassAgreement

TRAINING = ClassifierTraining(depth=8, steps=500, batch=64, learning_rate=0.1)
"""Seconds of training; enough for 99 % on the built-in images."""

TRAINING_IMAGES, VALIDATION_IMAGES = 32_000, 1000  # at most


def evaluate_class_agreement(
    evaluation: Evaluation, samples_per_class: int = 25, training: ClassifierTraining = TRAINING
) -> ClassAgreement:
    """Trains a classifier, tests it on validation images and samples, writes metrics.json."""
    data, num_classes = evaluation.splits, len(evaluation.splits.class_names)
    require_classes(data.train.labels.bincount(minlength=num_classes))
    indices = evenly_spaced(len(data.validation), VALIDATION_IMAGES)
    labels = torch.arange(num_classes).repeat_interleave(samples_per_class)
    reconstructions = reconstructed_set(evaluation, data.validation, indices)
    samples = sampled_set(evaluation, labels, torch.arange(len(labels)))
    tests = {
        "images": halved(evaluation, data.validation, indices),
        "reconstructions": halved(evaluation, reconstructions),
        "samples": halved(evaluation, samples),
    }
    train = halved(evaluation, data.train, evenly_spaced(len(data.train), TRAINING_IMAGES))
    sources = {"training images": lambda: train}
    _, accuracy = next(classifier_accuracies(evaluation, sources, tests, training))
    agreement = ClassAgreement(
        on_images=accuracy["images"].top1,
        on_reconstructions=accuracy["reconstructions"].top1,
        on_samples=accuracy["samples"].top1,
        num_samples=len(labels),
        training=training,
        provenance=evaluation.provenance(len(indices)),
    )
    evaluation.write(replace(evaluation.read(), class_agreement=agreement))
    return agreement
