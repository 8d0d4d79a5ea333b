"""Complete runs as functions that return a frozen config.

Write your own in the same way: call one of these and `dataclasses.replace` what should differ.
Every preset takes the source of the images and their number of classes.
"""

from collections.abc import Callable
from dataclasses import replace

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.pixels import PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.data.augmentation import AugmentationConfig
from vqvae2.data.config import DataConfig
from vqvae2.messages import did_you_mean
from vqvae2.priors import (
    GatedPixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    PriorConfig,
    TransformerConfig,
)
from vqvae2.runs.config import AutoencoderStageConfig, LevelConfig, RunConfig
from vqvae2.runs.decoder import DecoderStageConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.sampling import SamplingConfig

Preset = Callable[..., RunConfig]


def demo(source: str = "synthetic", num_classes: int = 12) -> RunConfig:
    """Minutes on a laptop: the built-in images at 32x32, codes 4x4 + 8x8."""
    prior = TransformerConfig(channels=96, num_layers=4, num_heads=4)
    stage1 = TrainingConfig(steps=1600, validate_every=600, validation_examples=500)
    top = TrainingConfig(
        steps=1800, batch=64, optimizer="muon", learning_rate=3e-3, weight_decay=0.1, beta2=0.95,
        cooldown=0.8, cooldown_shape="cosine", validate_every=600, validation_examples=500,
    )  # fmt: skip
    level = LevelConfig(
        prior=prior,
        training=top,
        # Cooler than the priors are: samples of a few minutes' training gain more than they lose.
        sampling=SamplingConfig(temperature=0.6, guidance=3),
        label_dropout=0.1,
    )
    return RunConfig(
        preset="demo",
        precision="float32",  # its results are compared to the last digit
        data=DataConfig(source=source, size=32, synthetic_images=24_000),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(
                channels=64,
                residual_channels=32,
                codebooks=(CodebookConfig(num_codes=256, code_size=32),),
            ),
            training=stage1,
            continuous_steps=60,
        ),
        levels=(
            level,
            replace(
                level,
                prior=replace(prior, num_layers=3),
                training=replace(top, steps=2700, batch=32),
                sampling=replace(level.sampling, guidance=2),
            ),
        ),
    )


def cifar10(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """CIFAR-10 at 32x32, codes 4x4 + 8x8; half an hour on two cores."""
    top = TrainingConfig(
        steps=2000, batch=128, warmup_steps=100, cooldown=0.5, validate_every=250,
        average_decay=0.99,
    )  # fmt: skip
    return RunConfig(
        preset="cifar10",
        data=DataConfig(source=source, size=32),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(),
            training=TrainingConfig(steps=8000, validate_every=1000, average_decay=0.99),
        ),
        levels=(
            LevelConfig(
                prior=GatedPixelCNNConfig(kernel=3, attention_every=4, dropout=0.3),
                training=top,
            ),
            LevelConfig(
                prior=GatedPixelCNNConfig(
                    channels=96,
                    residual_channels=96,
                    kernel=3,
                    num_conditioning_blocks=6,
                    dropout=0.2,
                ),
                training=replace(top, steps=3000, batch=64, validate_every=500),
            ),
        ),
    )


def cifar10_sharp(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """CIFAR-10 with a sharp decoder, Transformers trained by Muon, and guidance.

    Of the 4x4 codes there are 128, so that 50,000 images say more about each; mirrored images
    double their number.
    """
    top = TrainingConfig(
        steps=6600, batch=128, optimizer="muon", learning_rate=3e-3, weight_decay=0.1, beta2=0.95,
        warmup_steps=100, cooldown=0.8, cooldown_shape="cosine", validate_every=300,
        average_decay=0.995,
    )  # fmt: skip
    decoder = TrainingConfig(
        steps=8000, batch=32, learning_rate=4e-4, beta1=0.5, beta2=0.99, validate_every=1000,
        average_decay=0.998,
    )  # fmt: skip
    prior = TransformerConfig(channels=192, num_layers=6, num_heads=6, dropout=0.2)
    return RunConfig(
        preset="cifar10-sharp",
        data=DataConfig(source=source, size=32),
        num_classes=num_classes,
        augmentation=AugmentationConfig(mirror=True),
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(codebooks=(CodebookConfig(num_codes=128), CodebookConfig())),
            training=TrainingConfig(steps=16_000, validate_every=2000, average_decay=0.99),
            mirror=True,
            perturbation=0.1,
        ),
        decoder=DecoderStageConfig(training=decoder),
        levels=(
            LevelConfig(
                prior=prior,
                training=top,
                sampling=SamplingConfig(guidance=3),
                label_dropout=0.1,
                masking=0.2,
                mirror_bit=True,
            ),
            LevelConfig(
                prior=replace(prior, dropout=0.1, num_conditioning_blocks=2),
                training=replace(top, steps=5000, batch=64, validate_every=500),
                sampling=SamplingConfig(guidance=1.5),
                label_dropout=0.1,
                coarser_dropout=0.2,
                mirror_bit=True,
            ),
        ),
    )


def vqvae_cifar10(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """Sonnet's published CIFAR-10 run: one 8x8 level, 10,000 steps of 32; our codebook."""
    return RunConfig(
        preset="vqvae-cifar10",
        data=DataConfig(source=source, size=32),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(factors=(4,), residual_channels=32),
            training=TrainingConfig(
                steps=10_000, learning_rate=3e-4, cooldown=0.0, validate_every=1000
            ),
            continuous_steps=0,
            level_dropout=0.0,
        ),
        levels=(
            LevelConfig(
                prior=GatedPixelCNNConfig(num_layers=8),
                training=TrainingConfig(steps=6000, batch=64, validate_every=500),
            ),
        ),
    )


def images64(source: str = "data/images", num_classes: int = 1) -> RunConfig:
    """Any images at 64x64, codes 8x8 + 16x16; a quarter of an hour on two cores.

    The default: short, so that everyone soon sees all stages. Raise the steps for quality.
    """
    run = cifar10(source, num_classes)
    top, bottom = run.levels
    return replace(
        run,
        preset="images64",
        data=DataConfig(source=source, size=64),
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(channels=96, residual_channels=48),
            training=TrainingConfig(steps=2000, batch=16, validate_every=1000, average_decay=0.99),
        ),
        levels=(
            replace(top, training=replace(top.training, steps=1200, batch=32)),
            replace(bottom, training=replace(bottom.training, steps=1200, batch=16)),
        ),
    )


def images128(source: str = "data/images", num_classes: int = 1) -> RunConfig:
    """Any images at 128x128, codes 16x16 + 32x32; half a day on one GPU."""
    prior = GatedPixelCNNConfig(channels=256, residual_channels=512, num_layers=15)
    training = TrainingConfig(
        steps=100_000, batch=128, learning_rate=3e-4, warmup_steps=500, average_decay=0.999,
        validate_every=2000, save_every=2000, validation_examples=5000, log_every=100,
    )  # fmt: skip
    return RunConfig(
        preset="images128",
        data=DataConfig(source=source, size=128),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(model=VQVAEConfig(), training=training),
        levels=(
            LevelConfig(prior=replace(prior, attention_every=5, num_heads=8), training=training),
            LevelConfig(
                prior=replace(prior, num_conditioning_blocks=10),
                training=replace(training, batch=64),
            ),
        ),
    )


PAPER_TRAINING = TrainingConfig(
    steps=2_207_444, batch=128, learning_rate=3e-4, warmup_steps=0, cooldown=0.0,
    average_decay=0.9999, validate_every=10_000, save_every=5000, log_every=100,
    validation_examples=5000,
)  # fmt: skip

PAPER_PRIOR = GatedPixelCNNConfig(
    channels=512, residual_channels=2048, num_layers=20, attention_every=5, num_heads=8,
    num_output_blocks=20, num_conditioning_blocks=0,
)  # fmt: skip


def paper_level(prior: GatedPixelCNNConfig, steps: int, batch: int) -> LevelConfig:
    """One of the paper's priors with its training."""
    return LevelConfig(prior=prior, training=replace(PAPER_TRAINING, steps=steps, batch=batch))


def imagenet256(source: str = "data/imagenet", num_classes: int = 1000) -> RunConfig:
    """The paper's ImageNet model: 256x256, codes 32x32 + 64x64 (Appendix A, recalled).

    Its layout and sizes; codebook collapse is prevented our way (docs/codebooks.md).
    """
    bottom = replace(
        PAPER_PRIOR, residual_channels=1024, attention_every=0, num_output_blocks=0,
        num_conditioning_blocks=20,
    )  # fmt: skip
    return RunConfig(
        preset="imagenet256",
        data=DataConfig(source=source, size=256),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(model=VQVAEConfig(), training=PAPER_TRAINING),
        levels=(paper_level(PAPER_PRIOR, 1_600_000, 1024), paper_level(bottom, 754_000, 512)),
    )


def ffhq1024(source: str = "data/ffhq", num_classes: int = 1) -> RunConfig:
    """The paper's FFHQ model: 1024x1024, codes 32x32 + 64x64 + 128x128 (Appendix A, recalled)."""
    top = replace(PAPER_PRIOR, num_output_blocks=0, dropout=0.5)
    middle = replace(
        top, residual_channels=1024, attention_every=20, num_conditioning_blocks=8, dropout=0.3
    )
    bottom = replace(middle, num_layers=10, attention_every=0, dropout=0.25)
    return RunConfig(
        preset="ffhq1024",
        data=DataConfig(source=source, size=1024),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(
            model=VQVAEConfig(factors=(2, 2, 8)),
            training=replace(PAPER_TRAINING, steps=304_741),
        ),
        levels=(
            paper_level(top, 237_000, 1024),
            paper_level(middle, 57_400, 512),
            paper_level(bottom, 270_000, 256),
        ),
    )


def on_pixels(
    preset: str, source: str, num_classes: int, prior: PriorConfig, num_mixtures: int
) -> RunConfig:
    """A prior on the pixels of 32x32 images; never trained to its end by us."""
    training = TrainingConfig(
        steps=100_000, batch=64, learning_rate=3e-4, warmup_steps=500, average_decay=0.9995,
        validate_every=2000, save_every=2000, validation_examples=500, log_every=100,
    )  # fmt: skip
    return RunConfig(
        preset=preset,
        data=DataConfig(source=source, size=32),
        num_classes=num_classes,
        autoencoder=AutoencoderStageConfig(
            model=PixelsConfig(num_mixtures=num_mixtures), training=None
        ),
        levels=(LevelConfig(prior=prior, training=training),),
    )


def gated_cifar10(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """Gated PixelCNN on the pixels of CIFAR-10, a softmax per channel; our size."""
    prior = GatedPixelCNNConfig(channels=128, residual_channels=128, num_layers=15, kernel=5)
    return on_pixels("gated-cifar10", source, num_classes, prior, num_mixtures=0)


def pixelcnnpp_cifar10(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """PixelCNN++ on the pixels of CIFAR-10: the paper's 5 layers of 160, 10 logistics."""
    prior = PixelCNNPPConfig(channels=160, num_layers=5)
    return on_pixels("pixelcnnpp-cifar10", source, num_classes, prior, num_mixtures=10)


def pixelsnail_cifar10(source: str = "data/cifar10", num_classes: int = 10) -> RunConfig:
    """PixelSNAIL on the pixels of CIFAR-10: the paper's 12 blocks of 256, 10 logistics."""
    prior = PixelSNAILConfig(channels=256, num_blocks=12, dropout=0.5)
    return on_pixels("pixelsnail-cifar10", source, num_classes, prior, num_mixtures=10)


PRESETS: dict[str, Preset] = {
    "demo": demo,
    "cifar10": cifar10,
    "cifar10-sharp": cifar10_sharp,
    "vqvae-cifar10": vqvae_cifar10,
    "images64": images64,
    "images128": images128,
    "imagenet256": imagenet256,
    "ffhq1024": ffhq1024,
    "gated-cifar10": gated_cifar10,
    "pixelcnnpp-cifar10": pixelcnnpp_cifar10,
    "pixelsnail-cifar10": pixelsnail_cifar10,
}

EXPECTED = {
    "demo": "6 to 9 min on two cores",
    "cifar10": "half an hour on two cores",
    "cifar10-sharp": "two hours on two cores",
    "vqvae-cifar10": "7 min for stage 1 on two cores",
    "images64": "15 min on two cores",
    "images128": "half a day on one GPU",
    "imagenet256": "the paper: MSE 0.005, 3.41 / 3.45 nats",
    "ffhq1024": "the paper's three levels",
    "gated-cifar10": "pixels; never trained (paper: 3.03 bits per dimension)",
    "pixelcnnpp-cifar10": "pixels; never trained (paper: 2.92 bits per dimension)",
    "pixelsnail-cifar10": "pixels; never trained (paper: 2.85 bits per dimension)",
}
"""What to expect of each preset; measured values are in docs/results."""


def find_preset(name: str) -> Preset:
    """The preset of that name; ValueError suggests near ones."""
    if name in PRESETS:
        return PRESETS[name]
    raise ValueError(f"Unknown preset {name!r}; {did_you_mean(name, PRESETS)}")
