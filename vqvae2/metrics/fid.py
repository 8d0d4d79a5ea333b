"""Fréchet inception distance: two sets as Gaussians of features (Heusel et al. 2017).

torchmetrics' sums and trace, in float64. Features are streamed: memory is D x D numbers per set,
whatever the number of images. FID falls with the number of images: compare values of equal numbers
only.

Legend: `B` images, `D` features.
"""

from collections.abc import Iterable

from torch import Tensor, nn


class Passthrough(nn.Identity):
    """Returns features unchanged where torchmetrics expects a network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def frechet_distance(real: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    """FID of two sets of at least two images each, as batches of features (B, D)."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric, counts = None, [0, 0]
    for number, batches in enumerate((real, other)):
        for features in batches:
            size = features.shape[1]
            if metric is None:
                metric = FrechetInceptionDistance(feature=Passthrough(size), sync_on_compute=False)
            if size != (expected := metric.inception.num_features):
                raise ValueError(
                    f"Both sets must have features of one network, got {expected} and {size} "
                    "numbers per image."
                )
            metric.update(features.double(), real=number == 0)
            counts[number] += len(features)
    if metric is None or min(counts) < 2:
        raise ValueError(f"FID needs at least 2 images per set, got {counts[0]} and {counts[1]}.")
    # Rounding can leave a negative distance between equal sets.
    return max(0.0, float(metric.compute().double()))
