"""A set of images beside a real one, through one network: every distance that we know.

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
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.inception_score import SPLITS, inception_score
from vqvae2.metrics.kid import SUBSET_SIZE, kernel_distance
from vqvae2.metrics.precision_recall import NEIGHBOURS, precision_recall
from vqvae2.metrics.results import Measurement

FEATURES = "vqvae2-features 1"
"""Format and version of the files in the cache."""

NEEDED = max(SPLITS, NEIGHBOURS + 1)
"""Images in a set without which one of the figures is not defined."""


@dataclass(frozen=True)
class Features:
    """What a network saw in a set of images.

    Arguments:
        features: (N, D) float32.
        probabilities: (N, K) float32.
        shape: (C, H, W) of the images.
    """

    features: Tensor
    probabilities: Tensor
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.features)

    def gathered(self, world: World) -> "Features":
        """What all ranks saw, each in its part of the set."""
        return Features(world.gather(self.features), world.gather(self.probabilities), self.shape)

    def some(self, indices: Tensor) -> "Features":
        """What it saw in some of them."""
        return Features(self.features[indices], self.probabilities[indices], self.shape)


@torch.no_grad()
def look(extractor: Extractor, batches: Iterable[Tensor]) -> Features:
    """Shows a network images (B, 3, H, W) uint8, a batch at a time."""
    features, probabilities, shapes = [], [], set()
    for images in batches:
        shapes.add(tuple(images.shape[1:]))
        if images.ndim != 4 or images.shape[1] != 3 or len(shapes) > 1:
            raise ValueError(
                f"Expected images (B, 3, H, W) of one size, got {sorted(shapes)}; bring them to "
                "one size and three channels."
            )
        features.append(extractor.features(images).float().cpu())
        probabilities.append(extractor.probabilities(images).float().cpu())
    if not features:
        raise ValueError("Expected at least one image to look at, got none.")
    return Features(torch.cat(features), torch.cat(probabilities), shapes.pop())


def look_once(extractor: Extractor, batches: Callable[[], Iterable[Tensor]]) -> Features:
    """`look`, kept in the cache: the same network looks at the same pixels once.

    Arguments:
        batches: gives the same images each time; they are read once to know them, and once more
            if the network has not seen them.
    """
    known = hashlib.sha256(f"{FEATURES} {extractor.digest}\n".encode())
    for images in batches():
        known.update(f"{tuple(images.shape)}".encode())
        known.update(images.contiguous().numpy().tobytes())
    path = cache_folder() / "features" / f"{known.hexdigest()[:32]}.safetensors"
    seen = read_seen(path)
    if seen is None:
        seen = look(extractor, batches())
        with suppress(OSError):  # a cache that cannot be written only costs time
            write_seen(path, seen)
    return seen


def write_seen(path: Path, seen: Features) -> None:
    """Writes what a network saw."""
    from safetensors.torch import save

    shape = torch.tensor(seen.shape)
    tensors = {"features": seen.features, "probabilities": seen.probabilities, "shape": shape}
    write_bytes(path, save(tensors, {"format": FEATURES}))


def read_seen(path: Path) -> Features | None:
    """What `write_seen` wrote; None if there is nothing whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept = load_file(path)
        return Features(kept["features"], kept["probabilities"], tuple(kept["shape"].tolist()))
    except (OSError, SafetensorError, KeyError):
        return None


def distances_between(real: Features, other: Features) -> Measurement:
    """FID, KID, precision and recall of `other` against `real`, and its inception score.

    KID has no deviation where its subsets are the whole sets. Raises ValueError for images of
    two sizes and for fewer than `NEEDED` of them.
    """
    require_enough(min(len(real), len(other)))
    if real.shape != other.shape:
        raise ValueError(
            f"Images of two sizes cannot be compared, (C, H, W) {real.shape} and {other.shape}; "
            "a network sees the size before anything else. Bring them to one."
        )
    kid, kid_deviation = kernel_distance(real.features, other.features)
    precision, recall = precision_recall(real.features, other.features)
    score, score_deviation = inception_score(other.probabilities)
    values = {
        "fid": frechet_distance([real.features], [other.features]),
        "kid": kid,
        "kid_deviation": kid_deviation if min(len(real), len(other)) > SUBSET_SIZE else None,
        "precision": precision,
        "recall": recall,
        "inception_score": score,
        "inception_score_deviation": score_deviation,
    }
    return Measurement(len(other), values)


def require_enough(count: int) -> None:
    """Raises ValueError for sets too small for every figure."""
    if count < NEEDED:
        raise ValueError(
            f"Comparing sets of images needs at least {NEEDED} in each, got {count}; more make "
            "the figures mean something."
        )
