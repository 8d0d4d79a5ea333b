"""Likelihood of validation codes: nats per code, a level.

Over all levels of a image they add up to the nats of its whole description; divided by ln 2 and
the image's values that is bits per image dimension, the rate of a lossy code: it says nothing
of the image's own likelihood without the distortion beside it. Of a prior on pixels it is that
likelihood, the "bits per dimension" of the autoregressive family.
"""

import math
from collections.abc import Sequence

import torch

from vqvae2.data.codes import CodeDataset
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.priors import Prior


@torch.no_grad()
def nats_per_code(
    prior: Prior,
    level: int,
    codes: CodeDataset,
    limit: int = 1 << 40,
    batch: int = 128,
    world: World = SINGLE_PROCESS,
) -> float:
    """Mean nats per code of `level` over at most `limit` images, evenly spread.

    Arguments:
        ranks: who shares the work.
    """
    total, chosen = torch.zeros(1, dtype=torch.float64), evenly_spaced(len(codes), limit)
    for indices in world.shard(chosen).split(batch):
        maps, labels = codes.batch(indices)
        maps = [code.to(prior.device) for code in maps[: level + 1]]
        log_prob = prior.log_prob(maps[level], labels.to(prior.device), maps[:level])
        total -= log_prob.cpu().double().flatten(1).mean(dim=1).sum()
    return float(world.sum(total)) / len(chosen)


def bits_per_dim(nats: Sequence[float], positions: Sequence[int], shape: Sequence[int]) -> float:
    """Bits per image dimension of levels with `nats` a code and `positions` codes each.

    Arguments:
        shape: (C, H, W) of the image.
    """
    whole = sum(n * count for n, count in zip(nats, positions, strict=True))
    return whole / math.log(2) / math.prod(shape)
