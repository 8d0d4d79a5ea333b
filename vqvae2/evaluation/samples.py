"""How good a run's samples are, by the metrics of the paper (Sec. 3.3, 4.2, 4.3).

Sets of images are compared with as many training images, through one feature extractor: validation
images (what can be reached), their reconstructions (what the codes allow), and samples, all of
them and the best fractions by classifier rejection. Samples have the classes of the training
images; smaller fractions are selected from more samples.

Legend: `N` images, `K` classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from vqvae2.configuration import AtLeast1, require_ranges
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.accuracy_score import classifier_accuracies
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import dataset_images, reconstructed_images
from vqvae2.evaluation.labelled_sets import sampled_set
from vqvae2.evaluation.neighbours import save_neighbours
from vqvae2.evaluation.selection import Networks, ScoredSamples, draw_samples, select_fraction
from vqvae2.metrics.classifier import ClassifierTraining, require_classes
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import (
    Features,
    cached_features,
    distances_between,
    extract_features,
    require_enough,
)
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.rejection import first_class
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.sampling import SamplingConfig


@dataclass(frozen=True)
class SampleEvaluationConfig:
    """What is measured of samples.

    Arguments:
        num_images: samples, at most as many as there are training images; also validation images
            and reconstructions, at most.
        fractions: of samples that are selected, in (0, 1]; those below 1 need a selector that has
            the run's classes.
        temperatures: samples of these temperatures at all levels are measured without selection:
            the other way to trade diversity for quality.
        score_training: of classifiers that are trained on the samples of each fraction and tested
            on the validation images; None for no accuracy score.
    """

    num_images: AtLeast1 = 10_000
    fractions: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = ()
    score_training: ClassifierTraining | None = None

    def __post_init__(self) -> None:
        """Validates the configuration."""
        require_ranges("Samples: ", self)
        invalid = [fraction for fraction in self.fractions if not 0 < fraction <= 1]
        if invalid or not self.fractions:
            raise ValueError(f"Fractions must be in (0, 1], got {invalid or 'none'}.")
        for temperature in self.temperatures:
            SamplingConfig(temperature=temperature)


def evaluate_samples(
    evaluation: Evaluation,
    extractor: Extractor,
    config: SampleEvaluationConfig,
    selector: Extractor | None = None,
) -> SampleMetrics:
    """Measures the samples of a run; writes metrics.json, beside the results of other extractors.

    Samples with their nearest training images are written to quality/NAME-neighbours.png.

    Arguments:
        evaluation: the run.
        extractor: gives the features.
        config: what is measured.
        selector: selects the fractions; the extractor itself by default.

    Raises:
        ValueError: another extractor of the same name has results in metrics.json.
    """
    evaluation.require_independent(extractor)
    extractor = replace(extractor, name=result_name(evaluation, extractor))
    existing = evaluation.read().samples.get(extractor.name)
    if existing is not None and existing.digest != extractor.digest:
        raise ValueError(
            f"{evaluation.folder.path} has results of another network named {extractor.name}; "
            "give this one another name with --extractor-name."
        )
    networks = Networks(extractor, selector or extractor)
    metrics, selected = measure_samples(evaluation, networks, config)
    write_samples(evaluation, extractor.name, metrics)
    if evaluation.world.is_main:
        save_neighbours(evaluation, extractor, next(iter(selected.values())))
    if config.score_training is None:
        return metrics
    metrics = replace(metrics, score_training=config.score_training)
    sources = {
        name: partial(sampled_set, evaluation, samples.labels, samples.seeds)
        for name, samples in selected.items()
    }
    tests = {"real": evaluation.validation}
    for name, accuracy in classifier_accuracies(evaluation, sources, tests, config.score_training):
        scored = metrics.by_fraction[name].add(accuracy_score=accuracy["real"].top1)
        metrics = replace(metrics, by_fraction={**metrics.by_fraction, name: scored})
        write_samples(evaluation, extractor.name, metrics)
    return metrics


def result_name(evaluation: Evaluation, extractor: Extractor) -> str:
    """The name of results: of the extractor, with the decoder where it is not the usual one."""
    pipeline = evaluation.pipeline
    is_unusual = pipeline.sharp_decoder is not None and pipeline.decoder_in_use == "plain"
    return f"{extractor.name}, plain decoder" if is_unusual else extractor.name


def write_samples(evaluation: Evaluation, extractor: str, metrics: SampleMetrics) -> None:
    """Writes the results of an extractor into metrics.json."""
    results = evaluation.read()
    evaluation.write(replace(results, samples={**results.samples, extractor: metrics}))


def measure_samples(
    evaluation: Evaluation, networks: Networks, config: SampleEvaluationConfig
) -> tuple[SampleMetrics, dict[str, ScoredSamples]]:
    """The metrics of samples, and the samples of each fraction, largest fraction first.

    All processes get the samples, the main process the metrics.

    Raises:
        ValueError: too few images, or a selector of other classes; before anything is sampled.
    """
    counts, extractor = class_counts(evaluation, networks, config), networks.extractor
    validation = evaluation.validation
    indices = evenly_spaced(len(validation), config.num_images)
    train = {
        number: dataset_features(evaluation, extractor, evaluation.splits.train, number)
        for number in {int(counts.sum()), len(indices)}
    }
    real, matched = train[int(counts.sum())], train[len(indices)]
    originals = dataset_features(evaluation, extractor, validation, len(indices))
    batches = reconstructed_images(evaluation, validation, indices)
    reconstructions = extract_features(extractor, batches).gather(evaluation.world)
    by_fraction, by_temperature = sample_sets(evaluation, networks, counts, config)
    others = {"fid_against_reconstructions": reconstructions}

    def measure(sets: Mapping[str, ScoredSamples]) -> dict[str, Measurement]:
        measurements: dict[str, Measurement] = {}
        for name, samples in sets.items():
            labels, features = samples.labels, samples.features
            measurements[name] = measure_set(evaluation, real, features, labels, others)
            evaluation.progress("comparing", len(measurements), len(sets))
        return measurements

    labels, side = validation.labels[indices], evaluation.config.data.size
    metrics = SampleMetrics(
        digest=extractor.digest,
        num_features=real.features.shape[1],
        selector=networks.selector.name,
        selector_digest=networks.selector.digest,
        preprocessing=f"{side}x{side}, uint8 RGB; reconstructions and samples rounded to uint8",
        sampling=evaluation.pipeline.config.sampling,
        seeds="n K + c for sample n of class c of K",
        validation=measure_set(evaluation, matched, originals, labels, {}),
        reconstructions=measure_set(
            evaluation, matched, reconstructions, labels, {"fid_against_originals": originals}
        ),
        by_fraction=measure(by_fraction),
        by_temperature=measure(by_temperature),
        provenance=evaluation.provenance(len(originals)),
    )
    return metrics, by_fraction


def sample_sets(
    evaluation: Evaluation, networks: Networks, counts: Tensor, config: SampleEvaluationConfig
) -> tuple[dict[str, ScoredSamples], dict[str, ScoredSamples]]:
    """Samples by fraction, largest first, and by temperature; (K,) `counts` of each class."""
    samples = draw_samples(evaluation, networks, counts, min(config.fractions))
    by_fraction = {
        f"{fraction:g}": select_fraction(samples, counts, fraction)
        for fraction in sorted(config.fractions, reverse=True)
    }
    by_temperature = {}
    for temperature in config.temperatures:
        levels = evaluation.pipeline.config.sampling
        sampling = [replace(level, temperature=temperature) for level in levels]
        by_temperature[f"{temperature:g}"] = draw_samples(
            evaluation, networks, counts, 1, sampling
        )
    return by_fraction, by_temperature


def class_counts(
    evaluation: Evaluation, networks: Networks, config: SampleEvaluationConfig
) -> Tensor:
    """Samples of each class, (K,): the classes of as many evenly spaced training images.

    Raises:
        ValueError: the images, their classes or the selector do not allow the measurement.
    """
    train, num_classes = evaluation.splits.train, evaluation.pipeline.num_classes
    indices = evenly_spaced(len(train), config.num_images)
    require_enough(min(len(indices), len(evaluation.validation)))
    counts = train.labels[indices].bincount(minlength=num_classes)
    if min(config.fractions) < 1:
        probabilities = networks.selector.probabilities(train.batch(indices[:1]))
        first_class(probabilities.shape[1], num_classes, networks.selector.name)
    if config.score_training is not None:
        require_classes(counts)
    return counts


def measure_set(
    evaluation: Evaluation,
    real: Features,
    images: Features,
    labels: Tensor,
    others: Mapping[str, Features],
) -> Measurement:
    """Distances of a set of images to real ones, on the main process.

    Arguments:
        evaluation: the run.
        real: training images, as many.
        images: the set.
        labels: (N,), of the set.
        others: sets to which FID alone is measured, by the name of that metric.
    """
    if not evaluation.world.is_main:
        return Measurement(len(images))
    accuracy = images.class_accuracy(labels, evaluation.pipeline.num_classes)
    measurement = distances_between(real, images).add(class_accuracy=accuracy)
    for name, other in others.items():
        # FID depends on the number of images: as many of both.
        matched = images.features[evenly_spaced(len(images), len(other))]
        measurement = measurement.add(**{name: frechet_distance([other.features], [matched])})
    return measurement


def dataset_features(
    evaluation: Evaluation, extractor: Extractor, dataset: ImageDataset, num_images: int
) -> Features:
    """Features of evenly spaced images of a data set; cached."""
    is_train = dataset is evaluation.splits.train
    title = "training images" if is_train else "validation images"
    local = evaluation.world.shard_nonempty(evenly_spaced(len(dataset), num_images))
    features = cached_features(
        extractor, lambda: dataset_images(dataset, local, title, evaluation.progress)
    )
    return features.gather(evaluation.world)
