"""Out-of-distribution detection by a score per image, such as a likelihood.

Likelihoods of generative models are known to fail at it: they depend on how simple an image is,
and can be higher for smooth images of another kind than for the training images (Nalisnick et al.
2019).

Legend: `N M` images.
"""

import torch
from torch import Tensor


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve: how often a score inside the distribution is the higher one.

    1 separates the sets, 0.5 is chance, 0 is the reverse order; ties count half.

    Arguments:
        inside: scores (N,) of images of the distribution.
        outside: scores (M,) of other images.
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"AUROC needs images of both sets, got {len(inside)} and {len(outside)}.")
    from torchmetrics.functional.classification import binary_auroc

    scores = torch.cat([inside, outside]).double()
    # torchmetrics applies a sigmoid to scores outside [0, 1], which would tie extreme ones: it
    # gets ranks instead.
    values, ranks = scores.unique(return_inverse=True)
    targets = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).long()
    return float(binary_auroc(ranks.double() / max(1, len(values) - 1), targets))
