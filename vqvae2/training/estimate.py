"""Roughly how long a run will train: its products, counted without data, at the machine's rate.

torch counts the products of a forward pass, for priors on the meta device, where nothing is
computed. A training step costs about three times as many: forward, and backward for inputs and
weights.
"""

from collections.abc import Callable

import torch

from vqvae2.autoencoder.discriminator import Discriminator
from vqvae2.autoencoder.sharp_decoder import SharpDecoder
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.distributed import World
from vqvae2.priors import Prior
from vqvae2.runs.config import RunConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.speed import matrix_rate

FORWARD_AND_BACKWARD = 3
FRACTIONS = (0.25, 0.7)
"""Of the machine's rate of matrix products, that training usually reaches."""


def estimate_seconds(config: RunConfig, world: World) -> tuple[float, float]:
    """The least and the most seconds that the training steps of a run usually take.

    Arguments:
        config: of the run.
        world: the processes that train it, which are taken to be equally fast.
    """
    flops = sum(
        FORWARD_AND_BACKWARD * training.steps * training.batch * flops
        for training, flops in stage_flops(config)
    )
    rate = matrix_rate(world.device) * world.size
    slow, fast = FRACTIONS
    return flops / (fast * rate), flops / (slow * rate)


def stage_flops(config: RunConfig) -> list[tuple[TrainingConfig, int]]:
    """How each model is trained, and the operations of its forward pass on one image."""
    stages, autoencoder = [], config.autoencoder
    if autoencoder.training is not None and not config.on_pixels:
        own, sharp = image_flops(config)
        stages.append((autoencoder.training, own))
        if config.decoder is not None:
            stages.append((config.decoder.training, sharp))
    with torch.device("meta"):
        for level, one in enumerate(config.levels):
            stages.append((one.training, prior_flops(Prior(one.prior, config.domain(level)))))
    return stages


@torch.random.fork_rng([])
def image_flops(config: RunConfig) -> tuple[int, int]:
    """The operations of the autoencoder, and of the decoder stage, on one image.

    They compute: the search for codes has no meta device.
    """
    model, side = config.autoencoder.model.build().eval(), config.data.size
    assert isinstance(model, VQVAE), "pixels are not trained"
    image = torch.zeros(1, model.config.image_channels, side, side)
    codes = model.encode(image)
    own = counted_flops(lambda: model.decode(model.encode(image)))
    if config.decoder is None:
        return own, 0
    sharp = SharpDecoder(config.decoder.model, model.config)
    judge = Discriminator(config.decoder.discriminator)
    # The discriminator classifies an image and its reconstruction.
    both = counted_flops(lambda: (sharp.decode(model, codes), judge(image), judge(image)))
    return own, both


def prior_flops(prior: Prior) -> int:
    """The operations of a prior's forward pass on the codes of one image."""
    domain = prior.domain
    maps = [torch.zeros(1, *grid.shape, dtype=torch.int64) for grid in domain.coarser]
    values = torch.zeros(1, *domain.shape, dtype=torch.int64)
    label = torch.zeros(1, dtype=torch.int64)
    return counted_flops(lambda: prior(values, prior.embed_context(label, maps)))


def counted_flops(call: Callable[[], object]) -> int:
    """The operations of the products in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
