"""A set of images through one feature extractor, and its distances to another set.

Legend: `B N` images, `D` features, `K` classes.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.distributed import World
from vqvae2.files import cache_folder, write_bytes
from vqvae2.metrics.density_coverage import NEIGHBOURS as BALL_NEIGHBOURS
from vqvae2.metrics.density_coverage import density_coverage
from vqvae2.metrics.extractors import Extractor, require_finite
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.inception_score import SPLITS, inception_score
from vqvae2.metrics.kid import SUBSET_SIZE, kernel_distance
from vqvae2.metrics.precision_recall import NEIGHBOURS, precision_recall
from vqvae2.metrics.results import Measurement
from vqvae2.metrics.rows import Rows
from vqvae2.metrics.sharpness import Sharpness
from vqvae2.transfers import arrivals

FORMAT = "vqvae2-features 2"
"""Format and version of the files in the cache."""

MINIMUM = max(SPLITS, NEIGHBOURS + 1, BALL_NEIGHBOURS + 1)
"""Number of images without which one of the metrics is not defined."""


@dataclass(frozen=True)
class Features:
    """The outputs of a feature extractor for a set of images.

    Arguments:
        features: (N, D) float32.
        probabilities: (N, K) float32.
        shape: (C, H, W) of the images.
        sharpness: of the images.
    """

    features: Tensor
    probabilities: Tensor
    shape: tuple[int, ...]
    sharpness: Sharpness

    def __len__(self) -> int:
        return len(self.features)

    def gather(self, world: World) -> "Features":
        """The features of all processes, each of which has a part of the set."""
        return self.map(world.gather)

    def select(self, indices: Tensor) -> "Features":
        """The features of some of the images."""
        return self.map(lambda rows: rows[indices])

    def map(self, function: Callable[[Tensor], Tensor]) -> "Features":
        """The features with all rows changed alike."""
        sharpness = self.sharpness
        return Features(
            function(self.features),
            function(self.probabilities),
            self.shape,
            Sharpness(function(sharpness.spectra), function(sharpness.gradients)),
        )

    def class_accuracy(self, labels: Tensor, num_classes: int) -> float | None:
        """Share of images whose label (N,) has the highest probability.

        None where the extractor has other classes; a first output may be "background".
        """
        first = self.probabilities.shape[1] - num_classes
        if num_classes < 2 or first not in (0, 1):
            return None
        predictions = self.probabilities[:, first:].argmax(dim=1)
        return float((predictions == labels).double().mean())


@torch.no_grad()
def extract_features(extractor: Extractor, batches: Iterable[Tensor]) -> Features:
    """The features of images (B, 3, H, W) uint8, by one pass of the network per batch."""
    features, probabilities, spectra, gradients = Rows(), Rows(), Rows(), Rows()
    shapes = set()

    def extract(images: Tensor) -> list[Tensor]:
        shapes.add(tuple(images.shape[1:]))
        if images.ndim != 4 or images.shape[1] != 3 or len(shapes) > 1:
            raise ValueError(
                f"Expected images (B, 3, H, W) of one size, got {sorted(shapes)}; bring them to "
                "one size and three channels."
            )
        outputs, sharpness = extractor.outputs(images), Sharpness.of(images.float() / 255)
        rows = [outputs.features.float(), outputs.probabilities.float()]
        return [*rows, sharpness.spectra, sharpness.gradients]

    for rows, shares, powers, magnitudes in arrivals(map(extract, batches)):
        features.append(require_finite(rows, extractor.name))
        probabilities.append(require_finite(shares, extractor.name))
        spectra.append(powers)
        gradients.append(magnitudes)
    if not shapes:
        raise ValueError("Expected at least one image to extract features of, got none.")
    sharpness = Sharpness(spectra.tensor(), gradients.tensor())
    return Features(features.tensor(), probabilities.tensor(), shapes.pop(), sharpness)


def cached_features(extractor: Extractor, batches: Callable[[], Iterable[Tensor]]) -> Features:
    """`extract_features` with a cache on disk, keyed by the extractor and the pixels.

    Arguments:
        extractor: gives the features.
        batches: returns the same images at each call; they are read once for the key, and again
            where the cache lacks their features.
    """
    from safetensors.torch import save

    digest = hashlib.sha256(f"{FORMAT} {extractor.digest}\n".encode())
    for images in batches():
        digest.update(f"{tuple(images.shape)}".encode())
        digest.update(images.contiguous().numpy().tobytes())
    path = cache_folder() / "features" / f"{digest.hexdigest()[:32]}.safetensors"
    features = read_features(path)
    if features is None:
        features = extract_features(extractor, batches())
        tensors = {
            "features": features.features,
            "probabilities": features.probabilities,
            "shape": torch.tensor(features.shape),
            **vars(features.sharpness),
        }
        with suppress(OSError):  # a cache that cannot be written only costs time
            write_bytes(path, save(tensors, {"format": FORMAT}))
    return features


def read_features(path: Path) -> Features | None:
    """Reads a file of the cache; None if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        shape = tuple(tensors["shape"].tolist())
        sharpness = Sharpness(tensors["spectra"], tensors["gradients"])
        return Features(tensors["features"], tensors["probabilities"], shape, sharpness)
    except (OSError, SafetensorError, KeyError):
        return None


def distances_between(real: Features, other: Features) -> Measurement:
    """How far `other` is from `real` by every metric of sets, and its inception score.

    KID has no deviation where its subsets are the complete sets.

    Raises:
        ValueError: images of different sizes, or fewer than `MINIMUM` of them.
    """
    require_enough(min(len(real), len(other)))
    if real.shape != other.shape:
        raise ValueError(
            f"Images of two sizes cannot be compared, (C, H, W) {real.shape} and {other.shape}: "
            "features depend on the size. Bring them to one size."
        )
    kid, kid_deviation = kernel_distance(real.features, other.features)
    precision, recall = precision_recall(real.features, other.features)
    density, coverage = density_coverage(real.features, other.features)
    score, score_deviation = inception_score(other.probabilities)
    values: dict[str, float | None] = {
        "fid": frechet_distance([real.features], [other.features]),
        "kid": kid,
        "kid_deviation": kid_deviation if min(len(real), len(other)) > SUBSET_SIZE else None,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
        **real.sharpness.distances(other.sharpness),
        "inception_score": score,
        "inception_score_deviation": score_deviation,
    }
    return Measurement(len(other), values)


def require_enough(count: int) -> None:
    """Raises ValueError for sets too small for every metric."""
    if count < MINIMUM:
        raise ValueError(
            f"Comparing sets of images needs at least {MINIMUM} in each, got {count}; use more "
            "images."
        )
