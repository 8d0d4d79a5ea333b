"""The perceptual distance of images: squared distance of the features of a frozen network.

Feature vectors are normalised to length 1 at every position, as in LPIPS (arXiv 1801.03924), so
that all layers count alike; the last output may be logits, whose squared distance counts too
(MaskBit, arXiv 2409.16211, Sec. 3).

Legend: `B` batch, `C` channels, `K` classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqvae2.precision import at_least_float32

LOGIT_WEIGHT = 0.1


class PerceptualDistance(nn.Module):
    """The distance of pairs of images by one network.

    Arguments:
        network: maps images (B, C, H, W) in [0, 1] to a list of feature maps (B, ., ., .) and
            logits (B, K). It is frozen and stays in eval mode.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "PerceptualDistance":
        """Stays in eval mode."""
        return self

    def forward(self, images: Tensor, others: Tensor) -> Tensor:
        """The distance of each pair, (B,).

        Arguments:
            images: (B, C, H, W) in [0, 1]; no gradient reaches them.
            others: (B, C, H, W).
        """
        with torch.no_grad():
            targets: Sequence[Tensor] = self.network(images)
        pairs = zip(self.network(others), targets, strict=True)
        return torch.stack([output_distance(one, other) for one, other in pairs]).mean(dim=0)


def output_distance(one: Tensor, other: Tensor) -> Tensor:
    """The distance of one output of the network, (B,): of feature maps or of logits."""
    one, other = at_least_float32(one), at_least_float32(other)
    if one.ndim == 2:
        return LOGIT_WEIGHT * (one - other).square().mean(dim=1)
    return (unit_vectors(one) - unit_vectors(other)).square().sum(dim=1).mean(dim=(1, 2))


def unit_vectors(maps: Tensor) -> Tensor:
    """Maps (B, C, H, W) with vectors of length 1 at every position."""
    return maps / (maps.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()
