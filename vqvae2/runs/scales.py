"""The tables of `vqvae2.runs.budget`: what an amount of computation pays for (docs/budget.md)."""

from dataclasses import dataclass

SIZES = (16, 32, 64, 128, 256)
"""Sides of images that a design may have, pixels."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What an amount of computation pays for.

    Arguments:
        flops: floating point operations at the rate of matrix products, from which this applies.
        size: largest side of the images, pixels.
        grid: codes per side of the finest level.
        channels: width of the autoencoder.
        decoder_channels: width of the sharp decoder.
        discriminator_channels: width of the first layer of its discriminator.
        prior_channels, prior_layers: size of the Transformers.
        image_batch, coarse_batch, fine_batch: examples per step of the stages on images, of the
            prior of the coarsest level and of the others.
    """

    flops: float
    size: int
    grid: int
    channels: int
    decoder_channels: int
    discriminator_channels: int
    prior_channels: int
    prior_layers: int
    image_batch: int
    coarse_batch: int
    fine_batch: int


SCALES = (
    Scale(
        flops=0, size=32, grid=8, channels=64, decoder_channels=96, discriminator_channels=32,
        prior_channels=96, prior_layers=4, image_batch=32, coarse_batch=64, fine_batch=32,
    ),
    Scale(
        flops=1e14, size=64, grid=8, channels=96, decoder_channels=128, discriminator_channels=32,
        prior_channels=128, prior_layers=4, image_batch=32, coarse_batch=64, fine_batch=32,
    ),
    Scale(
        flops=6e14, size=64, grid=8, channels=128, decoder_channels=192,
        discriminator_channels=48, prior_channels=192, prior_layers=6, image_batch=32,
        coarse_batch=128, fine_batch=64,
    ),
    Scale(
        flops=5e15, size=64, grid=16, channels=128, decoder_channels=256,
        discriminator_channels=64, prior_channels=256, prior_layers=8, image_batch=64,
        coarse_batch=128, fine_batch=64,
    ),
    Scale(
        flops=5e16, size=128, grid=16, channels=192, decoder_channels=256,
        discriminator_channels=64, prior_channels=384, prior_layers=8, image_batch=128,
        coarse_batch=256, fine_batch=128,
    ),
    Scale(
        flops=1e18, size=256, grid=32, channels=256, decoder_channels=384,
        discriminator_channels=96, prior_channels=512, prior_layers=12, image_batch=128,
        coarse_batch=512, fine_batch=256,
    ),
)  # fmt: skip
"""In increasing order; docs/budget.md says what each number was fitted to."""


@dataclass(frozen=True, kw_only=True)
class Regularization:
    """Against memorising few images, for the prior of the coarsest level.

    Arguments:
        num_images: training images from which this applies.
        dropout, masking, weight_decay: as of `TransformerConfig`, `LevelConfig` and
            `TrainingConfig`.
    """

    num_images: int
    dropout: float
    masking: float
    weight_decay: float


REGULARIZATIONS = (
    Regularization(num_images=0, dropout=0.4, masking=0.3, weight_decay=1.0),
    Regularization(num_images=2_000, dropout=0.3, masking=0.3, weight_decay=0.3),
    Regularization(num_images=20_000, dropout=0.2, masking=0.2, weight_decay=0.1),
    Regularization(num_images=500_000, dropout=0.1, masking=0.0, weight_decay=0.1),
)
"""In increasing order."""


@dataclass(frozen=True, kw_only=True)
class Shares:
    """How the time is divided, in parts of any sum.

    Arguments:
        autoencoder: stage 1.
        classifier: the perceptual network, if it is trained.
        decoder: the decoder stage, if there is one.
        coarsest: the prior of the coarsest level.
        finer: the priors of all other levels together.
    """

    autoencoder: float = 0.16
    classifier: float = 0.07
    decoder: float = 0.27
    coarsest: float = 0.22
    finer: float = 0.28


SHARES = Shares()
