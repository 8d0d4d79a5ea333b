"""The feature extractor that a user names, or one that is trained on the run's images."""

from functools import partial

from vqvae2.data.images import Progress, open_images, quiet
from vqvae2.metrics.classifier import ClassifierTraining, as_extractor, train_classifier
from vqvae2.metrics.extractors import Extractor, open_extractor
from vqvae2.runs.folder import RunFolder

TRAINED = "own"
"""The name of an extractor that is trained, where no published network fits."""

TRAINING = ClassifierTraining(depth=14, steps=1000, batch=64, learning_rate=0.1)


def extractor_for(
    folder: RunFolder, where: str, name: str = "", device: str = "cpu", progress: Progress = quiet
) -> Extractor:
    """`open_extractor`, or for "own" a classifier trained on the images of a run.

    Arguments:
        folder: of the run.
        where: path, URL or hub name of a network, "own", or "" for the Inception network.
        name: of the extractor in results; the file's name by default.
        device: where the extractor runs.
        progress: called while a classifier is trained.
    """
    if where != TRAINED:
        return open_extractor(where, name, device)
    dataset = open_images(folder.read().data, progress=progress).train
    num_classes = len(dataset.class_names)
    if num_classes < 2:
        raise ValueError(
            f"A classifier of the run's images needs at least 2 classes, got {num_classes}; give "
            "the path of a network instead."
        )
    report = partial(progress, "classifier of training images")
    model = train_classifier(dataset, num_classes, TRAINING, device, report)
    return as_extractor(model, name or TRAINED)
