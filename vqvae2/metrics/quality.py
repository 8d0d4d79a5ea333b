"""A set of pictures beside a real one, through one network: every distance that we know.

Legend: `B N` pictures, `D` features, `K` classes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.metrics.features import Extractor
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.inception_score import inception_score
from vqvae2.metrics.kid import kernel_distance
from vqvae2.metrics.precision_recall import precision_recall


@dataclass(frozen=True)
class Seen:
    """What a network saw in a set of pictures.

    Arguments:
        features: (N, D) float32.
        probabilities: (N, K) float32.
    """

    features: Tensor
    probabilities: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def some(self, indices: Tensor) -> "Seen":
        """What it saw in some of them."""
        return Seen(self.features[indices], self.probabilities[indices])


@torch.no_grad()
def look(extractor: Extractor, batches: Iterable[Tensor]) -> Seen:
    """Shows a network pictures (B, 3, H, W) uint8, a batch at a time."""
    features, probabilities = [], []
    for images in batches:
        features.append(extractor.features(images).float().cpu())
        probabilities.append(extractor.probabilities(images).float().cpu())
    if not features:
        raise ValueError("Expected at least one picture to look at, got none.")
    return Seen(torch.cat(features), torch.cat(probabilities))


def distances_between(real: Seen, other: Seen) -> dict[str, float]:
    """FID, KID, precision and recall of `other` against `real`, and its inception score."""
    kid, kid_deviation = kernel_distance(real.features, other.features)
    precision, recall = precision_recall(real.features, other.features)
    score, score_deviation = inception_score(other.probabilities)
    return {
        "num_pictures": len(other),
        "fid": frechet_distance([real.features], [other.features]),
        "kid": kid,
        "kid_deviation": kid_deviation,
        "precision": precision,
        "recall": recall,
        "inception_score": score,
        "inception_score_deviation": score_deviation,
    }
