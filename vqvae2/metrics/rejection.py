"""Classifier rejection: draw too many, keep those that look most like their class (Sec. 3.3).

A sample's score is a classifier's probability of the class that it was drawn for. Keeping a
smaller fraction trades diversity for quality, as truncating a GAN's noise does.

Legend: `N` samples, `K` outputs of the classifier.
"""

import math

import torch
from torch import Tensor


def intended(probabilities: Tensor, labels: Tensor, num_classes: int, name: str) -> Tensor:
    """The probability of each sample's own class, (N,).

    Arguments:
        probabilities: (N, K); K is the number of classes, or one more where the first output is
            "background", as in networks of TensorFlow's time.
        labels: (N,) int64.
        name: of the classifier, for the message.
    """
    outputs = probabilities.shape[1]
    if outputs not in (num_classes, num_classes + 1):
        raise ValueError(
            f"The network {name} tells {outputs} classes apart, the model has {num_classes}: it "
            "cannot judge these samples; give a network of the same classes."
        )
    first = outputs - num_classes
    return probabilities.gather(1, labels[:, None] + first)[:, 0]


def keep_best(scores: Tensor, labels: Tensor, fraction: float) -> Tensor:
    """Indices of the best `fraction` of each class's samples, in their own order; at least one.

    Arguments:
        scores: (N,), the higher the better; equal scores keep the earlier sample.
        labels: (N,) int64.
        fraction: in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"The kept fraction must be in (0, 1], got {fraction:g}.")
    kept = []
    for label in labels.unique():
        members = (labels == label).nonzero()[:, 0]
        count = max(1, math.floor(fraction * len(members) + 1e-9))
        best = scores[members].sort(descending=True, stable=True).indices[:count]
        kept.append(members[best])
    return torch.cat(kept).sort().values
