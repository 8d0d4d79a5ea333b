"""Inception score: sure of each image, undecided over all (Salimans et al. 2016).

torchmetrics' score over `SPLITS` parts, their mean and spread. It looks at samples alone: a set of
one good image a class gets full marks.

Legend: `N` images, `K` classes.
"""

import math
import warnings

import torch
from torch import Tensor

from vqvae2.metrics.kid import in_order
from vqvae2.randomness import generator

SPLITS = 10


def inception_score(probabilities: Tensor, seed: int = 0) -> tuple[float, float]:
    """Score of class probabilities (N, K), and its standard deviation over parts."""
    if len(probabilities) < SPLITS:
        raise ValueError(
            f"The inception score takes {SPLITS} parts of a set, got {len(probabilities)} "
            "images; draw more."
        )
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save")
        metric = InceptionScore(feature=torch.nn.Identity(), splits=SPLITS, sync_on_compute=False)
        # It takes logits; a class that is out of the question must not become infinite.
        logits = in_order(probabilities.double()).clamp_min(1e-300).log()
        metric.update(logits)
        torch.manual_seed(generator("inception score", seed).initial_seed())
        mean, deviation = metric.compute()
    return float(mean), 0.0 if math.isnan(float(deviation)) else float(deviation)
