"""Samples of every class with their features, and the selection of the best of them.

A fraction f of n samples of a class means: the n best of the first n / f samples of that class.

Legend: `N` samples, `K` classes.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import index_in_class, sample_seeds, sampled_images
from vqvae2.metrics.extractors import Extractor, require_finite
from vqvae2.metrics.features import Features, extract_features
from vqvae2.metrics.rejection import class_scores, select_best
from vqvae2.metrics.rows import Rows
from vqvae2.sampling import SamplingConfig
from vqvae2.transfers import HostCopy


@dataclass(frozen=True)
class Networks:
    """The networks that measure samples.

    Arguments:
        extractor: gives the features of all metrics.
        selector: classifier that selects samples; it may be the extractor.
    """

    extractor: Extractor
    selector: Extractor


@dataclass(frozen=True)
class ScoredSamples:
    """Samples, by label and seed, with their features.

    Arguments:
        labels: (N,) int64.
        seeds: (N,) int64.
        features: by the extractor.
        scores: (N,), the selector's probability of the requested class; 0 without selection.
    """

    labels: Tensor
    seeds: Tensor
    features: Features
    scores: Tensor

    def select(self, indices: Tensor) -> "ScoredSamples":
        """Some of the samples."""
        labels, seeds, features = self.labels[indices], self.seeds[indices], self.features
        return ScoredSamples(labels, seeds, features.select(indices), self.scores[indices])


def draw_samples(
    evaluation: Evaluation,
    networks: Networks,
    counts: Tensor,
    fraction: float,
    sampling: Sequence[SamplingConfig] | None = None,
) -> ScoredSamples:
    """As many samples of each class as selecting `counts` (K,) of them with `fraction` needs."""
    world, extractor, selector = evaluation.world, networks.extractor, networks.selector
    labels = torch.arange(len(counts)).repeat_interleave(num_draws(counts, fraction))
    seeds = sample_seeds(labels, len(counts))
    batches = sampled_images(evaluation, labels, seeds, sampling)
    selected, pending = Rows(), deque[HostCopy]()

    @torch.no_grad()
    def score(images: Tensor) -> Tensor:
        pending.append(HostCopy(selector.outputs(images).probabilities))
        if len(pending) > 1:  # the device has the work of the next batch
            selected.append(pending.popleft().read())
        return images

    is_apart = fraction < 1 and selector is not extractor
    features = extract_features(extractor, map(score, batches) if is_apart else batches)
    features, scores = features.gather(world), torch.zeros(len(labels))
    if fraction < 1:
        probabilities = features.probabilities
        if is_apart:
            selected.append(pending.popleft().read())
            probabilities = world.gather(require_finite(selected.tensor(), selector.name))
        scores = class_scores(probabilities, labels, len(counts), selector.name)
    return ScoredSamples(labels, seeds, features, scores)


def num_draws(counts: Tensor, fraction: float) -> Tensor:
    """Samples to draw of each class so that `fraction` of them are `counts` (K,)."""
    return torch.tensor([math.ceil(count / fraction - 1e-9) for count in counts.tolist()])


def select_fraction(samples: ScoredSamples, counts: Tensor, fraction: float) -> ScoredSamples:
    """The best `counts` (K,) of the first samples of each class, as many as `fraction` needs."""
    first = index_in_class(samples.labels) < num_draws(counts, fraction)[samples.labels]
    candidates = samples.select(first.nonzero()[:, 0])
    return candidates.select(select_best(candidates.scores, candidates.labels, counts))
