"""The results of an evaluation, as metrics.json holds them.

The scalars of a set of images are keyed by metric name; `metrics.describe` says what each name
means and how its values are printed.
"""

from dataclasses import dataclass, field, replace

from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.sampling import SamplingConfig


@dataclass(frozen=True)
class Measurement:
    """The metrics of one set of images.

    Arguments:
        num_images: images in the set.
        values: by metric name; None where the metric is not defined, as SSIM of tiny images.
        per_level: by metric name, one value per level, coarsest first.
    """

    num_images: int
    values: dict[str, float | None] = field(default_factory=dict)
    per_level: dict[str, tuple[float, ...]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        """The value of a metric that was measured; KeyError otherwise."""
        value = self.values[name]
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> float | None:
        """The value of a metric, None where it was not measured."""
        return self.values.get(name)

    def levels(self, name: str) -> tuple[float, ...]:
        """The values of a metric per level, () where it was not measured."""
        return self.per_level.get(name, ())

    def add(self, **values: float | None) -> "Measurement":
        """The measurement with more values."""
        return replace(self, values={**self.values, **values})

    def flat(self) -> dict[str, float]:
        """All defined values by name; those of levels as `name.0`, `name.1`, ..."""
        values = {name: value for name, value in self.values.items() if value is not None}
        for name, levels in self.per_level.items():
            values |= {f"{name}.{level}": value for level, value in enumerate(levels)}
        return {"num_images": self.num_images, **values}


@dataclass(frozen=True)
class Provenance:
    """The run, the images, the weights and the versions of a result.

    Arguments:
        preset: of the run.
        data: source of the images.
        size: side of the images, pixels.
        validation_images: number of validation images measured.
        images_fingerprint: of the validation images.
        seed: of the run.
        models: fingerprints of the autoencoder and of each prior, coarsest first.
        versions: of vqvae2 and of the packages that compute.
        date: of the measurement, ISO 8601.
        decoder: that decoded images: plain or sharp.
    """

    preset: str
    data: str
    size: int
    validation_images: int
    images_fingerprint: str
    seed: int
    models: tuple[str, ...]
    versions: dict[str, str]
    date: str
    decoder: str = "plain"


@dataclass(frozen=True)
class SampleMetrics:
    """Samples, reconstructions and validation images against training images, by one extractor.

    Arguments:
        digest: of the extractor.
        num_features: D of the extractor.
        selector: name of the classifier that selects samples.
        selector_digest: of that classifier.
        preprocessing: how images were brought to the extractor.
        sampling: settings of each level, coarsest first.
        seeds: how the seeds of samples were chosen.
        validation: the validation images.
        reconstructions: the reconstructions of the validation images.
        by_fraction: samples by the fraction that the selector accepts, largest fraction first.
        by_temperature: all samples by the temperature of every level.
        provenance: of the result.
        score_training: of the classifiers of the accuracy scores; None without those scores.
    """

    digest: str
    num_features: int
    selector: str
    selector_digest: str
    preprocessing: str
    sampling: tuple[SamplingConfig, ...]
    seeds: str
    validation: Measurement
    reconstructions: Measurement
    by_fraction: dict[str, Measurement]
    by_temperature: dict[str, Measurement]
    provenance: Provenance
    score_training: ClassifierTraining | None = None

    @property
    def num_samples(self) -> int:
        """Number of samples, and of training images that they are compared with."""
        return next(iter(self.by_fraction.values())).num_images

    def sets(self) -> dict[str, Measurement]:
        """All measurements by the name of their set."""
        sets = {"validation": self.validation, "reconstructions": self.reconstructions}
        sets |= {f"by_fraction.{key}": one for key, one in self.by_fraction.items()}
        return sets | {f"by_temperature.{key}": one for key, one in self.by_temperature.items()}


@dataclass(frozen=True)
class ClassAccuracy:
    """Top-1 accuracy of a classifier on one set of images.

    Arguments:
        top1: over all images.
        by_class: over the images of each class; None for a class without images.
    """

    top1: float
    by_class: tuple[float | None, ...]


@dataclass(frozen=True)
class AccuracyScore:
    """The classification accuracy score of a run.

    Arguments:
        num_images: training images of each classifier.
        training: how the classifiers were trained.
        class_names: of the run.
        trained_on: accuracy by the set trained on, then by the set tested on.
        provenance: of the result.
    """

    num_images: int
    training: ClassifierTraining
    class_names: tuple[str, ...]
    trained_on: dict[str, dict[str, ClassAccuracy]]
    provenance: Provenance


@dataclass(frozen=True)
class Detection:
    """Out-of-distribution detection by one score.

    Arguments:
        auroc: area under the ROC curve; 1 separates the two sets, 0.5 is chance.
        validation: mean score of the validation images.
        outside: mean score of the images from elsewhere.
    """

    auroc: float
    validation: float
    outside: float


@dataclass(frozen=True)
class OutOfDistribution:
    """Out-of-distribution detection of one folder of images.

    Arguments:
        num_validation: validation images scored.
        num_outside: images of the folder scored.
        scores: by the name of the score.
        provenance: of the result.
    """

    num_validation: int
    num_outside: int
    scores: dict[str, Detection]
    provenance: Provenance


@dataclass(frozen=True)
class ClassAgreement:
    """Top-1 accuracy of a classifier, trained on the run's images, on images of known class.

    Arguments:
        on_images: of validation images.
        on_reconstructions: of their reconstructions.
        on_samples: of samples; their class is the requested one.
        num_samples: number of samples.
        training: settings of the classifier.
        provenance: of the result.
    """

    on_images: float
    on_reconstructions: float
    on_samples: float
    num_samples: int
    training: ClassifierTraining
    provenance: Provenance


@dataclass(frozen=True)
class TwoSampleTests:
    """How well a classifier tells real images from those of a run.

    Arguments:
        num_images: by the set, as many real ones; half of both trained the classifier.
        training: of the classifier.
        auroc: by the set, on the other half; 0.5 is chance.
        provenance: of the result.
    """

    num_images: dict[str, int]
    training: ClassifierTraining
    auroc: dict[str, float]
    provenance: Provenance


@dataclass(frozen=True)
class Comparison:
    """Sets of images against a reference set, all over the same number of images.

    Arguments:
        against: name of the reference set.
        extractor: name of the feature extractor.
        digest: of the extractor.
        num_images: images of each set.
        side: of the images, pixels.
        sets: distances by the name of the set.
        pairs: errors of paired images by the name of the set; empty where none were requested.
        versions: of vqvae2 and of the packages that compute.
    """

    against: str
    extractor: str
    digest: str
    num_images: int
    side: int
    sets: dict[str, Measurement]
    pairs: dict[str, Measurement]
    versions: dict[str, str]


@dataclass(frozen=True)
class RunMetrics:
    """Everything that was measured of a run; what was not is None or empty.

    Arguments:
        provenance: of `reconstruction` and `priors`.
        reconstruction: of validation images, by the plain decoder.
        sharp_reconstruction: of the same codes, by the sharp decoder, if there is one.
        priors: of validation and training codes.
        samples: by the name of the extractor.
        accuracy_score: classification accuracy score.
        out_of_distribution: by the folder of images.
        class_agreement: of samples with their requested classes.
        two_sample: of reconstructions and samples against real images.
    """

    provenance: Provenance | None = None
    reconstruction: Measurement | None = None
    sharp_reconstruction: Measurement | None = None
    priors: Measurement | None = None
    samples: dict[str, SampleMetrics] = field(default_factory=dict)
    accuracy_score: AccuracyScore | None = None
    out_of_distribution: dict[str, OutOfDistribution] = field(default_factory=dict)
    class_agreement: ClassAgreement | None = None
    two_sample: TwoSampleTests | None = None

    def __bool__(self) -> bool:
        """Whether anything was measured."""
        return self != RunMetrics()

    def sample_provenance(self) -> list[tuple[str, str, Provenance]]:
        """Each result on samples: its title, the option that repeats it, its origin."""
        origins = [
            (f"evaluation by {name}", "--samples", result.provenance)
            for name, result in self.samples.items()
        ]
        for folder, detection in self.out_of_distribution.items():
            origins.append((f"detection of {folder}", "--outside", detection.provenance))
        if score := self.accuracy_score:
            origins.append(("classification accuracy score", "--cas", score.provenance))
        if tests := self.two_sample:
            origins.append(("two-sample tests", "--two-sample", tests.provenance))
        return origins

    def measurements(self) -> dict[str, Measurement]:
        """The measurements by dotted name, `samples.EXTRACTOR.by_fraction.0.5` for instance."""
        sets = {
            "reconstruction": self.reconstruction,
            "sharp_reconstruction": self.sharp_reconstruction,
            "priors": self.priors,
        }
        for extractor, samples in self.samples.items():
            sets |= {f"samples.{extractor}.{name}": one for name, one in samples.sets().items()}
        return {name: measurement for name, measurement in sets.items() if measurement}

    def flat(self) -> dict[str, float]:
        """Every scalar by its dotted name."""
        values: dict[str, float] = {}
        for name, measurement in self.measurements().items():
            values |= {f"{name}.{key}": value for key, value in measurement.flat().items()}
        if self.accuracy_score:
            for source, tests in self.accuracy_score.trained_on.items():
                for test, accuracy in tests.items():
                    values[f"accuracy_score.{source}.{test}"] = accuracy.top1
        for folder, result in self.out_of_distribution.items():
            for name, score in result.scores.items():
                values[f"out_of_distribution.{folder}.{name}"] = score.auroc
        if two_sample := self.two_sample:
            values |= {f"two_sample.{name}": value for name, value in two_sample.auroc.items()}
        if agreement := self.class_agreement:
            values["class_agreement.images"] = agreement.on_images
            values["class_agreement.reconstructions"] = agreement.on_reconstructions
            values["class_agreement.samples"] = agreement.on_samples
        return values
