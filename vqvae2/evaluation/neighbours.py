"""Samples and their nearest training images in one image grid, to show memorisation."""

import torch
from torch import Tensor

from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import dataset_images
from vqvae2.evaluation.selection import ScoredSamples
from vqvae2.imaging.convert import to_float
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import cached_features
from vqvae2.metrics.nearest_neighbours import nearest

NUM_SAMPLES = 10  # rows
NUM_NEIGHBOURS = 6  # training images per row
SEARCHED_IMAGES = 50_000  # training images that are searched, at most


def save_neighbours(evaluation: Evaluation, extractor: Extractor, samples: ScoredSamples) -> None:
    """Writes samples of different classes, each with its nearest training images."""
    train, class_names = evaluation.splits.train, evaluation.splits.class_names
    searched = evenly_spaced(len(train), SEARCHED_IMAGES)
    features = cached_features(
        extractor, lambda: dataset_images(train, searched, "images to search", evaluation.progress)
    )
    chosen = samples.select(one_per_class(samples.labels)[:NUM_SAMPLES])
    images = evaluation.pipeline.sample(chosen.labels, chosen.seeds.tolist()).images.cpu()
    neighbours, _ = nearest(chosen.features.features, features.features, NUM_NEIGHBOURS)
    rows = [
        torch.cat([image[None], to_float(train.batch(searched[indices]))])
        for image, indices in zip(images, neighbours, strict=True)
    ]
    names = [class_names[label] for label in chosen.labels] if class_names else []
    grid = image_grid(rows, names, ["sample", "nearest"])
    save_png(evaluation.folder.neighbours(extractor.name), grid)


def one_per_class(labels: Tensor) -> Tensor:
    """The index of the first of labels (N,) of each class; all indices of a single class."""
    first = torch.tensor([int((labels == label).nonzero()[0]) for label in labels.unique()])
    return first if len(first) > 1 else torch.arange(len(labels))
