"""A residual network for small images and its training, for every metric that needs a classifier.

The networks of He et al. 2015 (arXiv 1512.03385), Sec. 4.2, trained on the classes of a run: they
give the classification accuracy score and the class agreement of samples, and serve as feature
extractor where no published network fits. Their results are compared with nothing else.

Legend: `B N` images, `S` their side, `K` classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, Interval, require_ranges
from vqvae2.data.order import Order, batch_indices, inference_batch_size
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.extractors import Extractor, Outputs
from vqvae2.randomness import generator, seeded
from vqvae2.transfers import arrivals, to_device
from vqvae2.weights import fingerprint


class LabelledImages(Protocol):
    """Images in memory or on disk, with their labels."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        ...

    @property
    def size(self) -> int:
        """S."""
        ...

    @property
    def order(self) -> Order:
        """The order of the images within an epoch."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """The images of (B,) indices, (B, 3, S, S) uint8."""
        ...


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """Settings of a classifier: stochastic gradient descent on mirrored and shifted images.

    Arguments:
        depth: Layers of the network, 6 n + 2: 8, 14, 20, 32, 44, 56.
        steps: Optimizer steps; the learning rate rises over the first fifth, then falls to 0.
        batch: Images per step.
        learning_rate: The highest learning rate.
        weight_decay: Weight decay of all weights.
        seed: Seed of the weights, the order and the shifts.
    """

    depth: Annotated[int, Interval("[8, inf)")] = 20
    steps: AtLeast1 = 2000
    batch: AtLeast1 = 128
    learning_rate: Annotated[float, Interval("(0, inf)")] = 0.3
    weight_decay: Annotated[float, Interval("[0, inf)")] = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Validates the settings."""
        require_ranges("A classifier's ", self)
        if self.depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, ...), got {self.depth}.")


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Where the width grows, the shortcut takes every other position and pads the channels with
    zeros: option A, which needs no weights.
    """

    def __init__(self, channels: int, next_channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels == next_channels else 2
        self.padding = next_channels - channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(channels, next_channels, 3, self.stride, 1, bias=False),
            nn.BatchNorm2d(next_channels),
            nn.ReLU(),
            nn.Conv2d(next_channels, next_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(next_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C', H / stride, W / stride)."""
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.padding))
        return F.relu(shortcut + self.convolutions(x))


class ResNet(nn.Sequential):
    """Logits (B, K) of images (B, 3, S, S) in [0, 1].

    Arguments:
        num_classes: K.
        depth: 6 n + 2.
        side: S; images larger than 32 are halved by strided convolutions down to 32 or less.
    """

    def __init__(self, num_classes: int, depth: int, side: int = 32) -> None:
        num_blocks = (depth - 2) // 6
        layers: list[nn.Module] = []
        channels = 3
        while side > 32 or not layers:
            stride = 2 if side > 32 else 1
            side = -(-side // stride)
            layers += [nn.Conv2d(channels, 16, 3, stride, 1, bias=False)]
            layers += [nn.BatchNorm2d(16), nn.ReLU()]
            channels = 16
        for width in (16, 32, 64):
            for _ in range(num_blocks):
                layers.append(ResidualUnit(channels, width))
                channels = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
        super().__init__(*layers, *head)


class ResNetMaps(nn.Module):
    """What a `ResNet` computes on the way: the maps of its three widths, and the logits.

    Arguments:
        model: the classifier.
    """

    def __init__(self, model: ResNet) -> None:
        super().__init__()
        self.model = model
        units = [i for i, layer in enumerate(model) if isinstance(layer, ResidualUnit)]
        self.last_units = {units[(n + 1) * len(units) // 3 - 1] for n in range(3)}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (B, C, ., .) and logits (B, K) of images (B, 3, S, S) in [0, 1]."""
        x, outputs = images, []
        for number, layer in enumerate(self.model):
            x = layer(x)
            if number in self.last_units:
                outputs.append(x)
        return [*outputs, x]


def train_classifier(
    dataset: LabelledImages,
    num_classes: int,
    training: ClassifierTraining,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda step, steps: None,
) -> ResNet:
    """Trains a classifier.

    Arguments:
        dataset: images of every class.
        num_classes: K.
        training: settings.
        device: where it is trained.
        progress: called with the number of steps done and their total.

    Returns:
        The network on `device`, in eval mode.
    """
    steps = classifier_steps(dataset, num_classes, training, device)
    model = next(steps)
    progress(1, training.steps)
    for step, _ in enumerate(steps, start=2):
        progress(step, training.steps)
    return model


def classifier_steps(
    dataset: LabelledImages,
    num_classes: int,
    training: ClassifierTraining,
    device: str | torch.device = "cpu",
) -> Iterator[ResNet]:
    """`train_classifier`, step by step.

    Yields:
        The same network after each step; after the last one it is in eval mode.
    """
    require_classes(dataset.labels.bincount(minlength=num_classes))
    with seeded("classification score", training.seed):
        model = ResNet(num_classes, training.depth, dataset.size).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(), momentum=0.9, nesterov=True, weight_decay=training.weight_decay
    )
    for step in range(training.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        indices = batch_indices(dataset.order, training.batch, training.seed, step)
        pixels = mirror_and_shift(dataset.batch(indices), training.seed, step)
        images, labels = to_device([pixels, dataset.labels[indices]], device)
        loss = F.cross_entropy(model(to_float(images)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield model if step + 1 < training.steps else model.eval()


def learning_rate(training: ClassifierTraining, step: int) -> float:
    """The learning rate of a step: a triangle with its peak after a fifth of the steps."""
    part = (step + 1) / training.steps
    return training.learning_rate * min(part / 0.2, (1 - part) / 0.8 + 1e-3)


def require_classes(counts: Tensor) -> None:
    """Raises ValueError unless there are at least 2 classes and images, (K,) counts, of each."""
    if len(counts) < 2:
        raise ValueError(
            f"A classifier needs images of at least 2 classes, got {len(counts)}; sort them "
            "into one sub-folder per class."
        )
    if not counts.all():
        missing = (counts == 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"A classifier needs images of every class, got none of {len(missing)} of "
            f"{len(counts)} classes (numbers {', '.join(map(str, missing[:5]))}) among "
            f"{int(counts.sum())} images; use more images."
        )


def mirror_and_shift(images: Tensor, seed: int, step: int) -> Tensor:
    """Images (B, C, S, S), half of them mirrored, each shifted by up to S / 8 pixels."""
    count, channels, side = images.shape[:3]
    noise = generator("shifts", seed, step)
    mirrored = torch.rand(count, generator=noise) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    margin = side // 8
    top, left = torch.randint(0, 2 * margin + 1, (2, count, 1), generator=noise)
    positions = torch.arange(side)
    return F.pad(images, (margin,) * 4)[
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        (top + positions)[:, None, :, None],
        (left + positions)[:, None, None, :],
    ]


@torch.no_grad()
def accuracy_by_class(model: nn.Module, images: LabelledImages, num_classes: int) -> Tensor:
    """Top-1 accuracy of a classifier per class, (K,) float64; NaN for classes without images."""
    device = next(model.parameters()).device
    parts = torch.arange(len(images)).split(inference_batch_size(images.size))
    batches = (to_float(to_device(images.batch(part), device)) for part in parts)
    predictions = arrivals([model(batch).argmax(dim=1)] for batch in batches)
    is_correct = torch.cat([rows for (rows,) in predictions]) == images.labels
    correct = images.labels[is_correct].bincount(minlength=num_classes)
    return correct.double() / images.labels.bincount(minlength=num_classes)


def as_extractor(model: ResNet, name: str) -> Extractor:
    """A trained classifier as a feature extractor; features are the input of its last layer."""
    *layers, last = model
    body, device = nn.Sequential(*layers), next(model.parameters()).device

    def outputs(images: Tensor) -> Outputs:
        features = body(to_float(to_device(images, device)))
        return Outputs(features, last(features).softmax(dim=1))

    return Extractor(name, fingerprint(model), outputs)
