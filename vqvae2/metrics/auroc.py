"""Telling two sets of images apart by one number a image, as likelihoods are asked to.

Likelihoods of generative models are known to fail at it: they follow how simple a image is, and
give smooth images of another kind more than they give their own (Nalisnick et al. 2019).

Legend: `N M` images.
"""

import torch
from torch import Tensor


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Area under the ROC curve of scores (N,) and (M,): how often an inside one is the higher.

    1 tells the sets apart, 0.5 does not, 0 has them the wrong way round; ties count half.
    """
    if not len(inside) or not len(outside):
        raise ValueError(
            f"Telling sets apart needs images of both, got {len(inside)} and {len(outside)}."
        )
    from torchmetrics.functional.classification import binary_auroc

    both = torch.cat([inside, outside]).double()
    # It takes numbers in [0, 1] as they are and puts others through a sigmoid, which would tie
    # all that are far out: their ranks say the same.
    values, world = both.unique(return_inverse=True)
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).long()
    return float(binary_auroc(world.double() / max(1, len(values) - 1), truth))
