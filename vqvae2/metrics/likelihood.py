"""Likelihood of held-out codes: nats per code, a level.

Over all levels of a picture they add up to the nats of its whole description; divided by ln 2 and
the picture's values that is bits per picture dimension, the rate of a lossy code: it says nothing
of the picture's own likelihood without the distortion beside it. Of a prior on pixels it is that
likelihood, the "bits per dimension" of the autoregressive family.
"""

import math
from collections.abc import Sequence

import torch

from vqvae2.data.codes import Codes
from vqvae2.data.order import spread
from vqvae2.priors import Prior
from vqvae2.ranks import ALONE, Ranks


@torch.no_grad()
def nats_per_code(
    prior: Prior,
    level: int,
    codes: Codes,
    limit: int = 1 << 40,
    batch: int = 128,
    ranks: Ranks = ALONE,
) -> float:
    """Mean nats per code of `level` over at most `limit` pictures, evenly spread.

    Arguments:
        ranks: who shares the work.
    """
    total, chosen = torch.zeros(1, dtype=torch.float64), spread(len(codes), limit)
    for indices in ranks.part(chosen).split(batch):
        maps, labels = codes.batch(indices)
        maps = [code.to(prior.device) for code in maps[: level + 1]]
        log_prob = prior.log_prob(maps[level], labels.to(prior.device), maps[:level])
        total -= log_prob.cpu().double().flatten(1).mean(dim=1).sum()
    return float(ranks.sum(total)) / len(chosen)


def bits_per_dim(nats: Sequence[float], positions: Sequence[int], shape: Sequence[int]) -> float:
    """Bits per picture dimension of levels with `nats` a code and `positions` codes each.

    Arguments:
        shape: (C, H, W) of the picture.
    """
    whole = sum(n * count for n, count in zip(nats, positions, strict=True))
    return whole / math.log(2) / math.prod(shape)
