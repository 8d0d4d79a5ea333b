"""A small classifier trained on the spot: a judge of samples where no published network fits.

A plain residual network (He et al. 2015) of a quarter million weights, Adam, one falling learning
rate. Its verdicts are named after it and compared with nothing but themselves.

Legend: `B` images, `K` classes.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.data.images import ImageDataset
from vqvae2.data.order import batch_indices, evenly_spaced
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.extractors import Extractor, checked
from vqvae2.nn.residual import ResidualBlock
from vqvae2.randomness import generator
from vqvae2.weights import fingerprint


class Classifier(nn.Sequential):
    """Logits (B, classes) of images (B, 3, H, W) in [0, 1]."""

    def __init__(self, num_classes: int, width: int = 32) -> None:
        stages: list[nn.Module] = []
        widths = [3, width, 2 * width, 4 * width]
        for channels, next_channels in pairwise(widths):
            stages += [
                nn.Conv2d(channels, next_channels, 3, stride=2, padding=1),
                nn.BatchNorm2d(next_channels),
                nn.ReLU(),
                ResidualBlock(next_channels, next_channels // 2),
            ]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes)]
        super().__init__(*stages, *head)


def train_classifier(
    dataset: ImageDataset, num_classes: int, steps: int = 400, batch: int = 64, seed: int = 0
) -> Classifier:
    """A classifier of `images`, in eval mode."""
    torch.manual_seed(generator("classifier", seed).initial_seed())
    model = Classifier(num_classes)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(steps):
        indices = batch_indices(dataset.order, batch, seed, step)
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / steps)
        logits = model(to_float(dataset.batch(indices)))
        loss = F.cross_entropy(logits, dataset.labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    return model


def as_extractor(model: Classifier, name: str, device: str = "cpu") -> Extractor:
    """A trained classifier as metrics use one: features are what its last layer is given."""
    *layers, last = model.to(device)
    body = nn.Sequential(*layers)

    def pooled(images: Tensor) -> Tensor:
        features: Tensor = body(to_float(images.to(device)))
        return features

    return Extractor(
        name=name,
        digest=fingerprint(model),
        features=lambda images: checked(pooled(images), images, name),
        probabilities=lambda images: checked(last(pooled(images)).softmax(dim=1), images, name),
    )


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    """Share of right answers over batches of (images in [0, 1], labels)."""
    right, count = 0, 0
    for images, labels in batches:
        right += int((model(images).argmax(dim=1) == labels).sum())
        count += len(labels)
    return right / max(1, count)


def labelled(
    dataset: ImageDataset, limit: int, batch: int = 128
) -> Iterator[tuple[Tensor, Tensor]]:
    """At most `limit` images, evenly spread, with their labels, in batches."""
    for indices in evenly_spaced(len(dataset), limit).split(batch):
        yield to_float(dataset.batch(indices)), dataset.labels[indices]
