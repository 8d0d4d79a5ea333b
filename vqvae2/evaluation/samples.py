"""How good a run's samples are, by the metrics of the paper (Sec. 3.3, 4.2, 4.3).

Sets of images are compared with as many training images, through one feature extractor: validation
images (what can be reached), their reconstructions (what the codes allow), and samples, all of
them and the best fractions by classifier rejection. Samples have the classes of the training
images; smaller fractions are selected from more samples.

Legend: `N` images, `K` classes.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from vqvae2.data.images import ImageDataset
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.accuracy_score import Source, classifier_accuracies, sampled_set
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import dataset_images, reconstructed_images, tracked
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

    num_images: int = 10_000
    fractions: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = ()
    score_training: ClassifierTraining | None = None

    def __post_init__(self) -> None:
        """Validates fractions and temperatures."""
        invalid = [fraction for fraction in self.fractions if not 0 < fraction <= 1]
        if invalid or not self.fractions:
            raise ValueError(f"Fractions must be in (0, 1], got {invalid or 'none'}.")
        for temperature in self.temperatures:
            SamplingConfig(temperature=temperature)


@dataclass(frozen=True)
class ReferenceFeatures:
    """Features of images that samples are compared with.

    Arguments:
        train: training images, as many as samples.
        train_matched: training images, as many as validation images.
        validation: validation images.
        reconstructions: of the validation images.
        labels: (N,) int64, of the validation images.
    """

    train: Features
    train_matched: Features
    validation: Features
    reconstructions: Features
    labels: Tensor


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
    sources = {name: sample_source(evaluation, samples) for name, samples in selected.items()}
    tests = {"real": evaluation.validation}
    by_fraction = dict(metrics.by_fraction)
    for name, accuracy in classifier_accuracies(evaluation, sources, tests, config.score_training):
        by_fraction[name] = by_fraction[name].add(accuracy_score=accuracy["real"].top1)
        metrics = replace(metrics, by_fraction=dict(by_fraction))
        write_samples(evaluation, extractor.name, metrics)
    return metrics


def sample_source(evaluation: Evaluation, samples: ScoredSamples) -> Source:
    """Draws samples again, to train a classifier on them."""
    return lambda: sampled_set(evaluation, samples.labels, samples.seeds)


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
    counts = class_counts(evaluation, networks, config)
    reference = reference_features(evaluation, networks.extractor, config, int(counts.sum()))
    samples = draw_samples(evaluation, networks, counts, min(config.fractions))
    selected = {
        f"{fraction:g}": select_fraction(samples, counts, fraction)
        for fraction in sorted(config.fractions, reverse=True)
    }
    by_fraction: dict[str, Measurement] = {}
    for name, some in selected.items():
        by_fraction[name] = measure_set(evaluation, reference, some)
        evaluation.progress("comparing", len(by_fraction), len(selected))
    levels = evaluation.pipeline.config.sampling
    by_temperature: dict[str, Measurement] = {}
    for temperature in config.temperatures:
        sampling = [replace(level, temperature=temperature) for level in levels]
        others = draw_samples(evaluation, networks, counts, 1, sampling)
        by_temperature[f"{temperature:g}"] = measure_set(evaluation, reference, others)
    validation, reconstructions = measure_images(evaluation, reference)
    side = evaluation.config.data.size
    metrics = SampleMetrics(
        digest=networks.extractor.digest,
        num_features=reference.train.features.shape[1],
        selector=networks.selector.name,
        selector_digest=networks.selector.digest,
        preprocessing=f"{side}x{side}, uint8 RGB; reconstructions and samples rounded to uint8",
        sampling=levels,
        seeds="n K + c for sample n of class c of K",
        validation=validation,
        reconstructions=reconstructions,
        by_fraction=by_fraction,
        by_temperature=by_temperature,
        provenance=evaluation.provenance(len(reference.validation)),
    )
    return metrics, selected


def class_counts(
    evaluation: Evaluation, networks: Networks, config: SampleEvaluationConfig
) -> Tensor:
    """Samples of each class, (K,): the classes of as many evenly spaced training images.

    Raises:
        ValueError: the images, their classes or the selector do not allow the measurement.
    """
    train, num_classes = evaluation.splits.train, evaluation.num_classes
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
    evaluation: Evaluation, reference: ReferenceFeatures, samples: ScoredSamples
) -> Measurement:
    """Distances of samples to training images, and FID to reconstructions (FID*)."""
    features, reconstructions = samples.features, reference.reconstructions
    if not evaluation.world.is_main:
        return Measurement(len(features))
    # FID depends on the number of images: as many samples as reconstructions.
    matched = features.features[evenly_spaced(len(features), len(reconstructions))]
    return distances_between(reference.train, features).add(
        class_accuracy=features.class_accuracy(samples.labels, evaluation.num_classes),
        fid_against_reconstructions=frechet_distance([reconstructions.features], [matched]),
    )


def measure_images(
    evaluation: Evaluation, reference: ReferenceFeatures
) -> tuple[Measurement, Measurement]:
    """Distances of validation images and of their reconstructions to training images."""
    originals, reconstructions = reference.validation, reference.reconstructions
    if not evaluation.world.is_main:
        return Measurement(len(originals)), Measurement(len(originals))
    validation, reconstructed = (
        distances_between(reference.train_matched, features).add(
            class_accuracy=features.class_accuracy(reference.labels, evaluation.num_classes)
        )
        for features in (originals, reconstructions)
    )
    distance = frechet_distance([originals.features], [reconstructions.features])
    return validation, reconstructed.add(fid_against_originals=distance)


def reference_features(
    evaluation: Evaluation, extractor: Extractor, config: SampleEvaluationConfig, num_samples: int
) -> ReferenceFeatures:
    """Features of training images, validation images and reconstructions."""
    train, validation = evaluation.splits.train, evaluation.validation
    indices = evenly_spaced(len(validation), config.num_images)
    local = evaluation.world.shard_nonempty(indices)
    batches = reconstructed_images(evaluation.pipeline, dataset_images(validation, local))
    batches = tracked(batches, "reconstructions", len(local), evaluation.progress)
    features = {
        number: dataset_features(evaluation, extractor, train, number)
        for number in {num_samples, len(indices)}
    }
    return ReferenceFeatures(
        train=features[num_samples],
        train_matched=features[len(indices)],
        validation=dataset_features(evaluation, extractor, validation, len(indices)),
        reconstructions=extract_features(extractor, batches).gather(evaluation.world),
        labels=validation.labels[indices],
    )


def dataset_features(
    evaluation: Evaluation, extractor: Extractor, dataset: ImageDataset, num_images: int
) -> Features:
    """Features of evenly spaced images of a data set; cached."""
    is_train = dataset is evaluation.splits.train
    title = "training images" if is_train else "validation images"
    local = evaluation.world.shard_nonempty(evenly_spaced(len(dataset), num_images))
    features = cached_features(
        extractor,
        lambda: tracked(dataset_images(dataset, local), title, len(local), evaluation.progress),
    )
    return features.gather(evaluation.world)
