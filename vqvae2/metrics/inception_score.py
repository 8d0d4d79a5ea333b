"""Inception score: certain of each image, undecided over all (Salimans et al. 2016).

torchmetrics' score over `SPLITS` parts, their mean and standard deviation. It ignores real images:
a set of one good image per class gets the highest score.

Legend: `N` images, `K` classes.
"""

import math
import warnings

import torch
from torch import Tensor

from vqvae2.metrics.kid import sort_rows
from vqvae2.randomness import seeded

SPLITS = 10


def inception_score(probabilities: Tensor, seed: int = 0) -> tuple[float, float]:
    """Score of class probabilities (N, K), and its standard deviation over parts."""
    if len(probabilities) < SPLITS:
        raise ValueError(
            f"The inception score splits a set into {SPLITS} parts, got {len(probabilities)} "
            "images; use more samples."
        )
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings(), seeded("inception score", seed):
        warnings.filterwarnings("ignore", message="Metric `InceptionScore` will save")
        metric = InceptionScore(feature=torch.nn.Identity(), splits=SPLITS, sync_on_compute=False)
        # It takes logits; the logit of probability 0 must stay finite.
        logits = sort_rows(probabilities.double()).clamp_min(1e-300).log()
        metric.update(logits)
        mean, deviation = metric.compute()
    return float(mean), 0.0 if math.isnan(float(deviation)) else float(deviation)
