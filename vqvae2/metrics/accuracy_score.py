"""Classification accuracy score: what a classifier learns from samples alone.

After Ravuri and Vinyals 2019 (arXiv 1905.10887): a classifier is trained on class-conditional
samples and asked about real images it never saw. Diversity that is
missing, or classes that are mixed up, cost it answers; so do codes that lose what tells classes
apart. The same classifier trained on real images and on reconstructions says how much each does.

The networks are those for small images of He et al. 2015 (arXiv 1512.03385), Sec. 4.2.

Legend: `B N` images, `S` their side, `K` classes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.data.order import Shuffle, batch_indices, inference_batch_size
from vqvae2.imaging.convert import to_float
from vqvae2.randomness import generator


class LabelledImages(Protocol):
    """Images to learn from or to be asked about: a split, or `ImageTensors`."""

    labels: Tensor

    def __len__(self) -> int: ...

    def batch(self, indices: Tensor) -> Tensor:
        """Images (B, 3, S, S) uint8."""
        ...


@dataclass
class ImagesInMemory:
    """Labelled images that are in memory.

    Arguments:
        pixels: (N, 3, S, S) uint8.
        labels: (N,) int64.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> Tensor:
        """Some of them."""
        return self.pixels[indices]


@dataclass(frozen=True, kw_only=True)
class ClassifierTraining:
    """How the classifier is trained: stochastic gradient descent, mirrored and shifted images.

    Arguments:
        depth: Layers of the network, 6 n + 2: 8, 14, 20, 32, 44, 56.
        steps: Optimizer steps; the learning rate rises over the first fifth and falls to 0.
        batch: Images a step.
        learning_rate: The learning rate at its highest.
        weight_decay: Weight decay of all weights.
        seed: Seed of the weights, the order and the shifts.
    """

    depth: int = 20
    steps: int = 2000
    batch: int = 128
    learning_rate: float = 0.3
    weight_decay: float = 5e-4
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses what no training can have."""
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth must be 6 n + 2 (8, 14, 20, ...), got {self.depth}.")
        if min(self.steps, self.batch) < 1:
            raise ValueError(
                f"steps and batch must be at least 1, got {self.steps} and {self.batch}."
            )


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Where the width grows the shortcut takes every other place and fills up with zeros: option A,
    which needs no weights.
    """

    def __init__(self, channels: int, next_channels: int) -> None:
        super().__init__()
        self.stride = 1 if channels == next_channels else 2
        self.more = next_channels - channels
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
        shortcut = F.pad(shortcut, (0, 0, 0, 0, 0, self.more))
        return F.relu(shortcut + self.convolutions(x))


class ResNet(nn.Sequential):
    """Logits (B, K) of images (B, 3, S, S) in [0, 1].

    Arguments:
        num_classes: K.
        depth: 6 n + 2.
        side: S; images larger than 32 are halved by strided convolutions down to 32 or less.
    """

    def __init__(self, num_classes: int, depth: int, side: int = 32) -> None:
        blocks = (depth - 2) // 6
        layers: list[nn.Module] = []
        channels = 3
        while side > 32 or not layers:
            stride = 2 if side > 32 else 1
            side = -(-side // stride)
            layers += [nn.Conv2d(channels, 16, 3, stride, 1, bias=False)]
            layers += [nn.BatchNorm2d(16), nn.ReLU()]
            channels = 16
        for width in (16, 32, 64):
            for _ in range(blocks):
                layers.append(ResidualUnit(channels, width))
                channels = width
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)]
        super().__init__(*layers, *head)


def train_on(
    dataset: LabelledImages,
    num_classes: int,
    training: ClassifierTraining,
    device: str = "cpu",
    progress: Callable[[int], None] = lambda step: None,
) -> ResNet:
    """A classifier of images of all classes, in eval mode."""
    require_classes(dataset.labels.bincount(minlength=num_classes))
    side = dataset.batch(torch.tensor([0])).shape[-1]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("classification score", training.seed).initial_seed())
        model = ResNet(num_classes, training.depth, side).to(device)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=training.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=training.weight_decay,
    )
    for step in range(training.steps):
        part = (step + 1) / training.steps
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * min(part / 0.2, (1 - part) / 0.8 + 1e-3)
        indices = batch_indices(Shuffle(len(dataset)), training.batch, training.seed, step)
        images = moved(dataset.batch(indices), training.seed, step).to(device)
        logits = model(to_float(images))
        loss = F.cross_entropy(logits, dataset.labels[indices].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(step + 1)
    return model.eval()


def require_classes(counts: Tensor) -> None:
    """Raises ValueError unless there are images, `counts` (K,), of at least 2 classes, all."""
    if len(counts) < 2:
        raise ValueError(
            f"A classifier needs images of at least 2 classes, got {len(counts)}; sort them "
            "into a sub-folder a class."
        )
    if not counts.all():
        missing = (counts == 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"A classifier needs images of every class, got none of {len(missing)} of "
            f"{len(counts)} classes (numbers {', '.join(map(str, missing[:5]))}) among "
            f"{int(counts.sum())} images; give it more of them."
        )


def moved(images: Tensor, seed: int, step: int) -> Tensor:
    """Images (B, C, S, S), half of them mirrored, each shifted by up to S / 8 pixels."""
    count, channels, side = images.shape[:3]
    numbers = generator("shifts", seed, step)
    mirrored = torch.rand(count, generator=numbers) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    room = side // 8
    top, left = torch.randint(0, 2 * room + 1, (2, count, 1), generator=numbers)
    places = torch.arange(side)
    return F.pad(images, (room,) * 4)[
        torch.arange(count)[:, None, None, None],
        torch.arange(channels)[:, None, None],
        (top + places)[:, None, :, None],
        (left + places)[:, None, None, :],
    ]


@torch.no_grad()
def accuracy_by_class(
    model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], num_classes: int
) -> Tensor:
    """Share of right answers of each class, (K,) float64; nan for classes that never come.

    Arguments:
        batches: (images (B, 3, S, S) uint8, labels (B,)).
    """
    device = next(model.parameters()).device
    right = torch.zeros(num_classes, dtype=torch.float64)
    count = torch.zeros(num_classes, dtype=torch.float64)
    for images, labels in batches:
        found = model(to_float(images.to(device))).argmax(dim=1).cpu()
        right += labels[found == labels].bincount(minlength=num_classes)
        count += labels.bincount(minlength=num_classes)
    return right / count


def in_batches(dataset: LabelledImages, indices: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Some images with their labels, as many at a time as memory likes."""
    side = dataset.batch(indices[:1]).shape[-1]
    for part in indices.split(inference_batch_size(side)):
        yield dataset.batch(part), dataset.labels[part]
