"""A discriminator of patches, the augmentation of what it sees, and its losses.

Each logit classifies a patch (PatchGAN, arXiv 1611.07004), at three sizes. The losses are the
softplus form of the adversarial loss (arXiv 1406.2661) with the R1 gradient penalty (arXiv
1801.04406). Images are augmented before they are classified, real and decoded ones alike, so that
a discriminator of few images does not memorise them (arXiv 2006.10738).

Legend: `B` batch, `C` image channels, `H W` image sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.configuration import AtLeast1, require_ranges
from vqvae2.nn.modules import Modules
from vqvae2.precision import at_least_float32

NUM_GROUPS = 8
SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """The size of a discriminator.

    Arguments:
        channels: width of the first layer, a multiple of 8; the next ones have 2 and 4 times as
            many.
        num_scales: number of patch sizes; each is about twice the one before.
    """

    channels: AtLeast1 = 48
    num_scales: AtLeast1 = 3

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("A discriminator's ", self)
        if self.channels % NUM_GROUPS:
            raise ValueError(
                f"A discriminator's channels must be a multiple of {NUM_GROUPS}, got "
                f"{self.channels}."
            )


@dataclass(frozen=True)
class DiscriminatorOutputs:
    """What a discriminator computes from images.

    Arguments:
        logits: (B, 1, ., .) per patch size, higher for real ones.
        features: (B, ., ., .) per layer, for feature matching.
    """

    logits: list[Tensor]
    features: list[Tensor]


class Discriminator(nn.Module):
    """Classifies patches of several sizes by one network; each halving has its own logits.

    Arguments:
        config: the size.
        image_channels: C.
    """

    def __init__(self, config: DiscriminatorConfig, image_channels: int = 3) -> None:
        super().__init__()
        widths = [config.channels * min(4, 2**i) for i in range(config.num_scales + 1)]
        self.first = nn.Conv2d(image_channels, widths[0], 3, padding=1)
        self.layers = Modules(
            nn.Sequential(
                nn.Conv2d(width, next_width, 4, stride=2, padding=1),
                nn.GroupNorm(NUM_GROUPS, next_width),
                nn.LeakyReLU(SLOPE),
            )
            for width, next_width in pairwise(widths)
        )
        self.heads = Modules(nn.Conv2d(width, 1, 3, padding=1) for width in widths[1:])

    def forward(self, images: Tensor) -> DiscriminatorOutputs:
        """Classifies images (B, C, H, W) in [0, 1], of at least 2^num_scales pixels a side."""
        x = F.leaky_relu(self.first(2 * images - 1), SLOPE)
        logits, features = [], []
        for layer, head in zip(self.layers, self.heads, strict=True):
            x = layer(x)
            features.append(x)
            logits.append(head(x))
        return DiscriminatorOutputs(logits, features)


def generator_loss(logits: Sequence[Tensor]) -> Tensor:
    """How far decoded images are from being classified as real, a scalar."""
    return torch.stack([F.softplus(-at_least_float32(scale)).mean() for scale in logits]).mean()


def discriminator_loss(real: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """How wrong the logits of real and of decoded images are, a scalar."""
    as_real = torch.stack([F.softplus(-at_least_float32(scale)).mean() for scale in real])
    as_decoded = torch.stack([F.softplus(at_least_float32(scale)).mean() for scale in decoded])
    return (as_real + as_decoded).mean()


def gradient_penalty(images: Tensor, logits: Sequence[Tensor]) -> Tensor:
    """R1: half of the mean squared norm of the gradient of the logits, a scalar.

    Arguments:
        images: (B, C, H, W), real ones, which `logits` were computed from.
        logits: of these images.
    """
    total = torch.stack(
        [at_least_float32(scale).flatten(1).mean(dim=1).sum() for scale in logits]
    ).sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    return at_least_float32(gradient).square().sum(dim=(1, 2, 3)).mean() / 2


def feature_distance(real: Sequence[Tensor], decoded: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of features of pairs of images, a scalar (arXiv 1711.11585).

    Gradients reach the decoded images alone.
    """
    pairs = zip(real, decoded, strict=True)
    distances = [
        F.l1_loss(at_least_float32(other), at_least_float32(one.detach())) for one, other in pairs
    ]
    return torch.stack(distances).mean()


def augment(images: Tensor, noise: Tensor) -> Tensor:
    """Images that are mirrored, shifted by up to an eighth, and have a hole; differentiable.

    Colours stay, since pairs of a real and a decoded image must keep them.

    Arguments:
        images: (B, C, H, W).
        noise: (B, 5) uniform in [0, 1); equal rows augment equally.
    """
    height, width = images.shape[2:]
    mirrored = (noise[:, 0] < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(3), images)
    rows = shifted_positions(height, noise[:, 1])
    columns = shifted_positions(width, noise[:, 2])
    padded = F.pad(images, (1, 1, 1, 1))  # positions outside read the border of zeros
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    images = padded.movedim(1, -1)[batch, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    inside = hole(height, noise[:, 3])[:, :, None] & hole(width, noise[:, 4])[:, None, :]
    return images * ~inside[:, None]


def shifted_positions(side: int, noise: Tensor) -> Tensor:
    """Positions (B, side) of a padded image, shifted by up to an eighth of the side."""
    margin = max(1, side // 8)
    shift = (noise * (2 * margin + 1)).long() - margin
    positions = torch.arange(side, device=noise.device) + shift[:, None]
    return (positions + 1).clamp(0, side + 1)


def hole(side: int, noise: Tensor) -> Tensor:
    """Which positions (B, side) lie in a hole of half the side around a random centre."""
    centre = (noise * side).long()[:, None]
    distance = torch.arange(side, device=noise.device) - centre
    return (distance >= -(side // 4)) & (distance < side // 4)
