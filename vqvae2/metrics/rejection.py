"""Classifier rejection: draw too many, keep those that look most like their class (Sec. 3.3).

A sample's score is a classifier's probability of the class that it was drawn for. Keeping a
smaller fraction trades diversity for quality, as truncating a GAN's noise does.

Legend: `N` samples, `K` outputs of the classifier.
"""

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
    first = first_class(probabilities.shape[1], num_classes, name)
    return probabilities.gather(1, labels[:, None] + first)[:, 0]


def first_class(outputs: int, num_classes: int, name: str) -> int:
    """Which output of a network is the first class, 0 or 1; ValueError if it knows others."""
    if outputs not in (num_classes, num_classes + 1):
        raise ValueError(
            f"The network {name} tells {outputs} classes apart, the model has {num_classes}: it "
            "cannot judge these samples; give a network of the same classes, or own."
        )
    return outputs - num_classes


def keep_best(scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Indices of the best samples of each class, in their own order.

    Arguments:
        scores: (N,), the higher the better; equal scores keep the earlier sample.
        labels: (N,) int64.
        counts: (K,), how many of each class are kept, at most as many as there are.
    """
    kept = []
    for label, count in enumerate(counts.tolist()):
        members = (labels == label).nonzero()[:, 0]
        order = scores[members].sort(descending=True, stable=True).indices
        kept.append(members[order[:count]])
    return torch.cat(kept).sort().values
