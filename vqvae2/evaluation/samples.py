"""How good a run's samples are, by the paper's instruments (Sec. 3.3, 4.2, 4.3).

Everything is measured against the same number of training images, through one network: validation
images (what could be reached), their reconstructions (what the codes allow), and samples, all of
them and the best fractions by classifier rejection. Every set has the same number of images, and
samples have the classes of the training images; smaller fractions are chosen from more draws.

Legend: `N` images, `K` classes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vqvae2.data.images import ImageDataset, ImageSplits, Progress, open_images, quiet
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.evaluation.accuracy_score import drawn_set, scores_of
from vqvae2.evaluation.evaluation import provenance
from vqvae2.evaluation.image_sets import drawn, restored, seeds_within, shown
from vqvae2.imaging.convert import to_float
from vqvae2.imaging.grid import image_grid
from vqvae2.imaging.png import save_png
from vqvae2.imaging.previews import NUM_PREVIEW_IMAGES
from vqvae2.metrics.accuracy_score import ClassifierTraining, require_classes
from vqvae2.metrics.classifier import as_extractor, train_classifier
from vqvae2.metrics.extractors import Extractor, open_extractor
from vqvae2.metrics.features import Features, distances_between, look, look_once, require_enough
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.nearest_neighbours import nearest
from vqvae2.metrics.rejection import first_class, intended, keep_best
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig

OWN = "own"
"""An extractor that is trained on the run's images, where no published network fits."""

OWN_STEPS = 1500

NEIGHBOURS = 6  # training images beside a sample
SEARCHED = 50_000  # training images among which neighbours are looked for, at most


@dataclass(frozen=True)
class SampleEvaluationConfig:
    """What is measured.

    Arguments:
        count: images in every set, at most as many as the smaller split has.
        fractions: kept fractions of samples, in (0, 1]; below 1 the judge must know the classes.
        temperatures: samples are also drawn with these for all levels and measured whole: the
            other way to trade diversity for quality.
        score: how classifiers are trained on the kept samples and asked about all validation
            images, which is the classification accuracy score of each fraction; None does not.
    """

    count: int = 10_000
    fractions: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = ()
    score: ClassifierTraining | None = None

    def __post_init__(self) -> None:
        """Refuses fractions and temperatures that are none."""
        wrong = [fraction for fraction in self.fractions if not 0 < fraction <= 1]
        if wrong or not self.fractions:
            raise ValueError(f"Kept fractions must be in (0, 1], got {wrong or 'none'}.")
        for temperature in self.temperatures:
            SamplingConfig(temperature=temperature)


@dataclass(frozen=True)
class ScoredSamples:
    """Samples, what the extractor saw in them, and how sure the judge is of their classes.

    Arguments:
        labels: (N,) int64.
        seeds: (N,) int64; 0, 1, ... within each class.
        seen: by the extractor.
        scores: (N,), the judge's probability of each sample's own class; (0,) without a judge.
    """

    labels: Tensor
    seeds: Tensor
    seen: Features
    scores: Tensor

    def some(self, indices: Tensor) -> "ScoredSamples":
        """Some of them."""
        scores = self.scores[indices] if len(self.scores) else self.scores
        return ScoredSamples(
            self.labels[indices], self.seeds[indices], self.seen.some(indices), scores
        )


def evaluate_samples(
    folder: RunFolder,
    extractor: Extractor,
    wanted: SampleEvaluationConfig,
    device: str = "cpu",
    progress: Progress = quiet,
    judge: Extractor | None = None,
    world: World = SINGLE_PROCESS,
) -> SampleMetrics:
    """Measures the samples of a run; keeps the figures in metrics.json, beside other networks'.

    Samples beside their nearest training images go to quality/NAME-neighbours.png. Raises
    ValueError where another network's figures have this one's name.

    Arguments:
        judge: chooses the kept fractions; the extractor itself by default.
        ranks: who shares the work; the first writes, and returns all figures.
    """
    run = folder.read()
    pipeline = Pipeline.open(folder.path).to(device)
    known = folder.read_metrics().samples.get(extractor.name)
    if known is not None and known.digest != extractor.digest:
        raise ValueError(
            f"{folder.path} has figures of another network named {extractor.name}; give this one "
            "another name with --extractor-name."
        )
    data = open_images(run.data, progress=progress)
    figures, kept = measure_quality(pipeline, data, extractor, wanted, progress, judge, world)
    if world.is_main:
        number = figures.validation.num_images
        origin = provenance(run, pipeline, data.validation, number)
        figures = replace(figures, provenance=origin)
        write_quality(folder, extractor.name, figures)
        save_neighbours(folder, pipeline, data, extractor, next(iter(kept.values())), progress)
    if wanted.score is not None:
        names = list(kept)
        for begin in range(0, len(names), world.size):  # a classifier each at a time
            share = torch.zeros(1, dtype=torch.float64)
            for name in names[begin + world.rank :][:1]:
                share += kept_score(pipeline, data, kept[name], wanted.score, name, progress)
            shares = world.gather(share).tolist()
            if world.is_main:
                by_fraction = dict(figures.by_fraction)
                for name, one in zip(names[begin:], shares, strict=False):
                    values = {**by_fraction[name].values, "accuracy_score": one}
                    by_fraction[name] = replace(by_fraction[name], values=values)
                figures = replace(figures, score_training=wanted.score, by_fraction=by_fraction)
                write_quality(folder, extractor.name, figures)
    return figures


def write_quality(folder: RunFolder, name: str, figures: SampleMetrics) -> None:
    """Puts a network's figures into metrics.json."""
    metrics = folder.read_metrics()
    folder.write_metrics(replace(metrics, samples={**metrics.samples, name: figures}))


def extractor_of(where: str, name: str, folder: RunFolder, device: str = "cpu") -> Extractor:
    """`open_extractor`, or for "own" a classifier trained on the run's images."""
    if where != OWN:
        return open_extractor(where, name, device)
    dataset = open_images(folder.read().data).train
    classes = len(dataset.class_names)
    if classes < 2:
        raise ValueError(
            f"A classifier of one's own needs images of at least 2 classes, got {classes}; "
            "give the path of a network instead."
        )
    return as_extractor(train_classifier(dataset, classes, OWN_STEPS), name or OWN, device)


def measure_quality(
    pipeline: Pipeline,
    data: ImageSplits,
    extractor: Extractor,
    wanted: SampleEvaluationConfig,
    progress: Progress = quiet,
    judge: Extractor | None = None,
    world: World = SINGLE_PROCESS,
) -> tuple[SampleMetrics, dict[str, ScoredSamples]]:
    """All figures of a pipeline's samples, as metrics.json keeps them under the network's name.

    Returns them with the samples of each kept fraction, the largest first. Raises ValueError for
    too few images, and for a judge of other classes, before anything is drawn. Where ranks share
    the work all have the samples, and the first has the figures.
    """
    classes, judge = max(1, len(data.class_names)), judge or extractor
    count = min(wanted.count, len(data.train), len(data.validation))
    require_enough(count)
    chosen = evenly_spaced(len(data.train), count)
    counts = data.train.labels[chosen].bincount(minlength=classes)
    if min(wanted.fractions) < 1:
        probabilities = judge.probabilities(data.train.batch(chosen[:1]))
        first_class(probabilities.shape[1], classes, judge.name)
    if wanted.score is not None:
        require_classes(counts)
    sets = look_at_images(pipeline, data, extractor, count, progress, world)
    every = draw(pipeline, extractor, counts, min(wanted.fractions), judge, progress, world=world)
    kept = {
        f"{fraction:g}": best(every, counts, fraction)
        for fraction in sorted(wanted.fractions, reverse=True)
    }
    validation = sets.figures(sets.validation, sets.truth)
    decoded = sets.figures(sets.decoded, sets.truth, {"originals": sets.validation})
    beside = {"reconstructions": sets.decoded}
    by_fraction: dict[str, Measurement] = {}
    for fraction, samples in kept.items():
        by_fraction[fraction] = sets.figures(samples.seen, samples.labels, beside)
        progress("comparing", len(by_fraction), len(kept))
    by_temperature: dict[str, Measurement] = {}
    for temperature in wanted.temperatures:
        sampling = [replace(draw, temperature=temperature) for draw in pipeline.config.sampling]
        samples = draw(pipeline, extractor, counts, 1, judge, progress, sampling, world)
        by_temperature[f"{temperature:g}"] = sets.figures(samples.seen, samples.labels, beside)
    side = pipeline.config.image_size
    found = SampleMetrics(
        digest=extractor.digest,
        num_features=sets.real.features.shape[1],
        selector=judge.name,
        selector_digest=judge.digest,
        preprocessing=f"{side}x{side}, uint8 RGB as the run sees images; reconstructions and "
        "samples rounded to uint8",
        sampling=pipeline.config.sampling,
        seeds="0, 1, ... within each class",
        validation=validation,
        reconstructions=decoded,
        by_fraction=by_fraction,
        by_temperature=by_temperature,
    )
    return found, kept


@dataclass(frozen=True)
class Sets:
    """What the extractor saw in images, against which samples are held.

    Arguments:
        real: training images.
        validation: validation images.
        decoded: their reconstructions.
        truth: (N,) int64, classes of the validation images.
        classes: K.
        wanted: whether this rank is to compare them.
    """

    real: Features
    validation: Features
    decoded: Features
    truth: Tensor
    classes: int
    wanted: bool

    def figures(
        self, seen: Features, labels: Tensor, against: Mapping[str, Features] | None = None
    ) -> Measurement:
        """Distances of a set to the training images, FID to others too; none if not wanted."""
        if not self.wanted:
            return Measurement(len(seen))
        distances = distances_between(self.real, seen)
        values = {
            **distances.values,
            **{
                f"fid_against_{name}": frechet_distance([other.features], [seen.features])
                for name, other in (against or {}).items()
            },
            **recognised(seen, labels, self.classes),
        }
        return replace(distances, values=values)


def look_at_images(
    pipeline: Pipeline,
    data: ImageSplits,
    extractor: Extractor,
    count: int,
    progress: Progress,
    world: World,
) -> Sets:
    """Looks at `count` images of each kind."""
    own = world.shard_nonempty(evenly_spaced(len(data.train), count))
    real = look_at(extractor, data.train, own, "training images", progress).gathered(world)
    asked = evenly_spaced(len(data.validation), count)
    own = world.shard_nonempty(asked)
    validation = look_at(extractor, data.validation, own, "validation images", progress).gathered(
        world
    )
    originals = shown(data.validation, own, "reconstructions", progress)
    decoded = look(extractor, restored(pipeline, originals)).gathered(world)
    truth, classes = data.validation.labels[asked], max(1, len(data.class_names))
    return Sets(real, validation, decoded, truth, classes, world.is_main)


def look_at(
    extractor: Extractor, dataset: ImageDataset, indices: Tensor, name: str, progress: Progress
) -> Features:
    """What a network sees in some images of a split; kept in the cache."""
    return look_once(extractor, lambda: shown(dataset, indices, name, progress))


def draw(
    pipeline: Pipeline,
    extractor: Extractor,
    counts: Tensor,
    fraction: float,
    judge: Extractor,
    progress: Progress = quiet,
    sampling: Sequence[SamplingConfig] | None = None,
    world: World = SINGLE_PROCESS,
) -> ScoredSamples:
    """As many samples of each class as `fraction` needs to keep `counts` (K,) of them."""
    labels = torch.arange(len(counts)).repeat_interleave(needed(counts, fraction))
    seeds, scores = seeds_within(labels), torch.empty(0)
    own_labels, own_seeds = world.shard_nonempty(labels), world.shard_nonempty(seeds)
    batches = drawn(pipeline, own_labels, own_seeds, "samples", progress, sampling)
    if fraction == 1:
        return ScoredSamples(labels, seeds, look(extractor, batches).gathered(world), scores)
    found: list[Tensor] = []

    def judged(images: Tensor) -> Tensor:
        """The other network looks at a batch while it is there."""
        found.append(judge.probabilities(images).cpu())
        return images

    alone = judge is extractor
    seen = look(extractor, batches if alone else map(judged, batches))
    probabilities = seen.probabilities if alone else torch.cat(found)
    scores = world.gather(intended(probabilities, own_labels, len(counts), judge.name))
    return ScoredSamples(labels, seeds, seen.gathered(world), scores)


def needed(counts: Tensor, fraction: float) -> Tensor:
    """Draws of each class of which `fraction` are `counts` (K,)."""
    return torch.tensor([math.ceil(count / fraction - 1e-9) for count in counts.tolist()])


def best(samples: ScoredSamples, counts: Tensor, fraction: float) -> ScoredSamples:
    """The best `counts` (K,) of as many draws of each class as `fraction` needs."""
    early = (samples.seeds < needed(counts, fraction)[samples.labels]).nonzero()[:, 0]
    if fraction == 1:
        return samples.some(early)
    return samples.some(early[keep_best(samples.scores[early], samples.labels[early], counts)])


def recognised(seen: Features, labels: Tensor, classes: int) -> dict[str, float]:
    """How often the network finds a image's class the likeliest; {} if it knows others."""
    extra = seen.probabilities.shape[1] - classes
    if classes < 2 or extra not in (0, 1):
        return {}
    found = seen.probabilities[:, extra:].argmax(dim=1)
    return {"class_accuracy": float((found == labels).double().mean())}


def kept_score(
    pipeline: Pipeline,
    data: ImageSplits,
    samples: ScoredSamples,
    training: ClassifierTraining,
    fraction: str,
    progress: Progress,
) -> float:
    """Classification accuracy score of some samples, which are drawn again from their seeds."""
    dataset = drawn_set(pipeline, samples.labels, samples.seeds, progress)
    classes, device = len(data.class_names), str(pipeline.device)
    name = f"kept fraction {fraction}"
    found = scores_of(
        dataset, {"real": data.validation}, classes, training, device, name, progress
    )
    return float(found[0, 0])


def save_neighbours(
    folder: RunFolder,
    pipeline: Pipeline,
    data: ImageSplits,
    extractor: Extractor,
    samples: ScoredSamples,
    progress: Progress,
) -> None:
    """Writes samples of different classes beside their nearest training images."""
    searched = evenly_spaced(len(data.train), SEARCHED)
    seen = look_at(extractor, data.train, searched, "images to search", progress)
    firsts = [int((samples.labels == label).nonzero()[0]) for label in samples.labels.unique()]
    if len(firsts) == 1:
        firsts = list(range(len(samples.labels)))
    chosen = torch.tensor(firsts[:NUM_PREVIEW_IMAGES])
    labels = samples.labels[chosen]
    again = pipeline.sample(labels, samples.seeds[chosen].tolist()).images.cpu()
    places, _ = nearest(samples.seen.features[chosen], seen.features, NEIGHBOURS)
    near = [to_float(data.train.batch(searched[row])) for row in places]
    names = [data.class_names[label] for label in labels] if data.class_names else []
    rows = [torch.cat([sample[None], others]) for sample, others in zip(again, near, strict=True)]
    image = image_grid(rows, names, ["sample", "nearest"], scale=max(1, 64 // data.train.size))
    save_png(folder.neighbours(extractor.name), image)
