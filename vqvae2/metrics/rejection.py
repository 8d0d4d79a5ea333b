"""Classifier rejection: selecting the samples that are most like their class (Sec. 3.3).

A sample's score is a classifier's probability of the requested class. Selecting a smaller fraction
trades diversity for quality, as the truncation of a GAN's noise does.

Legend: `N` samples, `K` classes.
"""

import torch
from torch import Tensor


def class_scores(
    probabilities: Tensor, labels: Tensor, num_classes: int, classifier: str
) -> Tensor:
    """The probability of each sample's requested class.

    Arguments:
        probabilities: (N, K), or (N, K + 1) where the first output is "background", as in networks
            of TensorFlow.
        labels: (N,) int64.
        num_classes: K.
        classifier: its name, for the message.

    Returns:
        (N,).

    Raises:
        ValueError: the classifier has other classes.
    """
    first = first_class(probabilities.shape[1], num_classes, classifier)
    return probabilities.gather(1, labels[:, None] + first)[:, 0]


def first_class(num_outputs: int, num_classes: int, classifier: str) -> int:
    """The output of a classifier that is class 0: output 0 or 1; ValueError for other classes."""
    if num_outputs not in (num_classes, num_classes + 1):
        raise ValueError(
            f"The network {classifier} has {num_outputs} classes, the model has {num_classes}: it "
            "cannot select samples by class; give a network of the same classes, or own."
        )
    return num_outputs - num_classes


def select_best(scores: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Indices of the samples with the highest scores per class, in ascending order.

    Arguments:
        scores: (N,); of equal scores the earlier sample is selected.
        labels: (N,) int64.
        counts: (K,), number to select of each class, at most all of them.
    """
    selected = []
    for label, count in enumerate(counts.tolist()):
        members = (labels == label).nonzero()[:, 0]
        order = scores[members].sort(descending=True, stable=True).indices
        selected.append(members[order[:count]])
    return torch.cat(selected).sort().values
