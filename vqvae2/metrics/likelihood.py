"""Likelihood of codes: nats per code of each level.

Summed over all codes of an image, divided by ln 2 and by its number of values, they are bits per
image dimension: the rate of a lossy code, which bounds the likelihood of the image only together
with the distortion. For a prior on pixels they are the "bits per dimension" of autoregressive
models.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vqvae2.data.codes import CodeDataset
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.priors import Prior
from vqvae2.transfers import arrivals, to_device


@torch.no_grad()
def nats_per_code(
    prior: Prior,
    codes: CodeDataset,
    limit: int = 1 << 40,
    batch: int = 128,
    world: World = SINGLE_PROCESS,
    every: int = 1,
) -> float:
    """Mean nats per code of a prior's level over at most `limit` images, evenly spaced.

    Arguments:
        prior: of any level.
        codes: of all levels.
        limit: number of images, at most.
        batch: images per forward pass.
        world: processes that share the work.
        every: examples per image; only the first of them is measured, the image itself.
    """
    level, total = len(prior.domain.coarser), torch.zeros(1, dtype=torch.float64)
    images = every * evenly_spaced(len(codes) // every, limit)

    def log_probs(indices: Tensor) -> list[Tensor]:
        maps, labels = to_device(codes.batch(indices), prior.device)
        return [prior.log_prob(maps[level], labels, maps[:level])]

    for (log_prob,) in arrivals(map(log_probs, world.shard(images).split(batch))):
        total -= log_prob.double().flatten(1).mean(dim=1).sum()
    return float(world.sum(total)) / len(images)


def bits_per_dim(nats: Sequence[float], positions: Sequence[int], shape: Sequence[int]) -> float:
    """Bits per image dimension.

    Arguments:
        nats: per code of each level.
        positions: codes per image of each level.
        shape: (C, H, W) of the image.
    """
    total = sum(n * count for n, count in zip(nats, positions, strict=True))
    return total / math.log(2) / math.prod(shape)
