"""How good a run's samples are, by the paper's instruments (Sec. 3.3, 4.2, 4.3).

Everything is measured against the same number of training pictures, through one network: held-out
pictures (what could be reached), their reconstructions (what the codes allow), and samples, all of
them and the best fractions by classifier rejection. Every set has the same number of pictures, so
smaller fractions are chosen from more draws.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.images import PictureData, Pictures, open_pictures
from vqvae2.data.order import at_once, spread
from vqvae2.likelihood import Draw
from vqvae2.metrics.classification_score import ScoreTraining
from vqvae2.metrics.classifier import as_extractor, train_classifier
from vqvae2.metrics.features import Extractor, open_extractor
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.inception_score import SPLITS
from vqvae2.metrics.neighbours import nearest
from vqvae2.metrics.quality import Seen, distances_between, look, look_once
from vqvae2.metrics.rejection import intended, keep_best
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import save_png, sheet, to_float, to_uint8
from vqvae2.training.classification import sampled, scores_of
from vqvae2.training.evaluate import provenance
from vqvae2.training.run import RunFolder

Progress = Callable[[str, int, int], None]

OWN = "own"
"""An extractor that is trained on the run's pictures, where no published network fits."""

OWN_STEPS = 1500

SHARES = ("recognised", "accuracy_score")
"""Figures that are shares of pictures, and not always measured."""

NEIGHBOURS, SHOWN = 6, 10  # training pictures beside each of so many samples


@dataclass(frozen=True)
class SampleQuality:
    """What is measured.

    Arguments:
        count: pictures in every set, at most as many as the smaller split has.
        fractions: kept fractions of samples, in (0, 1]; below 1 the extractor must know the
            classes.
        temperatures: samples are also drawn with these for all levels and measured whole: the
            other way to trade diversity for quality.
        score: how classifiers are trained on the kept samples and asked about all held-out
            pictures, which is the classification accuracy score of each fraction; None does not.
        batch: samples drawn at a time.
    """

    count: int = 10_000
    fractions: tuple[float, ...] = (1.0,)
    temperatures: tuple[float, ...] = ()
    score: ScoreTraining | None = None
    batch: int = 256

    def __post_init__(self) -> None:
        """Refuses fractions and temperatures that are none."""
        wrong = [fraction for fraction in self.fractions if not 0 < fraction <= 1]
        if wrong or not self.fractions:
            raise ValueError(f"Kept fractions must be in (0, 1], got {wrong or 'none'}.")
        for temperature in self.temperatures:
            Draw(temperature=temperature)


@dataclass(frozen=True)
class Drawn:
    """Samples, in turn over the classes: what they are, and what the extractor saw in them.

    Arguments:
        labels: (N,) int64.
        seeds: (N,) int64.
        seen: by the extractor.
    """

    labels: Tensor
    seeds: Tensor
    seen: Seen

    def some(self, indices: Tensor) -> "Drawn":
        """Some of them."""
        return Drawn(self.labels[indices], self.seeds[indices], self.seen.some(indices))


def evaluate_samples(
    folder: RunFolder,
    extractor: Extractor,
    wanted: SampleQuality,
    device: str = "cpu",
    progress: Progress = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measures the samples of a run; keeps the figures in metrics.json, beside other networks'.

    Samples beside their nearest training pictures go to quality/NAME-neighbours.png.
    """
    pipeline = Pipeline.load(folder.path).to(device)
    run = folder.read()
    data = open_pictures(run.data, progress=progress)
    figures, kept = measure_quality(pipeline, data, extractor, wanted, progress)
    if wanted.score is not None:
        figures["score_training"] = dataclasses.asdict(wanted.score)
        for fraction, samples in kept.items():
            found = figures["samples_by_kept_fraction"][fraction]
            found["accuracy_score"] = kept_score(
                pipeline, data, samples, wanted.score, f"the best {fraction}", progress
            )
    samples = next(iter(kept.values()))
    figures["provenance"] = provenance(run, data.held_out, figures["num_pictures"])
    picture = show_neighbours(pipeline, data, extractor, samples, progress)
    save_png(folder.neighbours(extractor.name), picture)
    metrics = folder.read_metrics()
    metrics["quality"] = {**metrics.get("quality", {}), extractor.name: figures}
    folder.write_metrics(metrics)
    return figures


def extractor_of(where: str, name: str, folder: RunFolder, device: str = "cpu") -> Extractor:
    """`open_extractor`, or for "own" a classifier trained on the run's pictures."""
    if where != OWN:
        return open_extractor(where, name, device)
    pictures = open_pictures(folder.read().data).train
    classes = len(pictures.class_names)
    if classes < 2:
        raise ValueError(
            f"A classifier of one's own needs pictures of at least 2 classes, got {classes}; "
            "give the path of a network instead."
        )
    return as_extractor(train_classifier(pictures, classes, OWN_STEPS), name or OWN, device)


def measure_quality(
    pipeline: Pipeline,
    data: PictureData,
    extractor: Extractor,
    wanted: SampleQuality,
    progress: Progress = lambda text, done, total: None,
) -> tuple[dict[str, Any], dict[str, Drawn]]:
    """All figures of a pipeline's samples, as metrics.json keeps them under the network's name.

    Returns them with the samples of each kept fraction, the largest first.
    """
    classes = max(1, len(data.class_names))
    count = min(wanted.count, len(data.train), len(data.held_out)) // classes * classes
    if count < (needed := max(4 * classes, SPLITS)):
        raise ValueError(
            f"Measuring samples needs at least {needed} pictures in each split ({classes} "
            f"classes), got {count}; hold out more, or ask for more --samples."
        )
    real = look_at_split(extractor, data.train, count, "training pictures", progress)
    held_out = look_at_split(extractor, data.held_out, count, "held-out pictures", progress)
    restored = look(extractor, reconstructed(pipeline, data.held_out, count, progress))
    truth = data.held_out.labels[spread(len(data.held_out), count)]

    def figures(kept: Drawn) -> dict[str, Any]:
        return {
            **distances_between(real, kept.seen),
            "fid_against_reconstructions": frechet_distance(
                [restored.features], [kept.seen.features]
            ),
            **recognised(kept.seen, kept.labels, classes),
        }

    drawn = draw(pipeline, extractor, classes, count, wanted, progress)
    kept = {
        f"{fraction:g}": best(drawn, classes, count, fraction, extractor.name)
        for fraction in sorted(wanted.fractions, reverse=True)
    }
    by_fraction, by_temperature = {}, {}
    for fraction, samples in kept.items():
        by_fraction[fraction] = figures(samples)
        progress("comparing", len(by_fraction), len(kept))
    for temperature in wanted.temperatures:
        draws = [Draw(temperature=temperature)] * len(pipeline.priors)
        whole = SampleQuality(count, batch=wanted.batch)
        samples = draw(pipeline, extractor, classes, count, whole, progress, draws)
        by_temperature[f"{temperature:g}"] = figures(samples)
    found = {
        "sha256": extractor.digest,
        "num_pictures": count,
        "num_features": real.features.shape[1],
        "held_out": {**distances_between(real, held_out), **recognised(held_out, truth, classes)},
        "reconstructions": {
            **distances_between(real, restored),
            "fid_against_originals": frechet_distance([held_out.features], [restored.features]),
            **recognised(restored, truth, classes),
        },
        "samples_by_kept_fraction": by_fraction,
        "samples_by_temperature": by_temperature,
    }
    return found, kept


def kept_score(
    pipeline: Pipeline,
    data: PictureData,
    samples: Drawn,
    training: ScoreTraining,
    name: str,
    progress: Progress,
) -> float:
    """The classification accuracy score of some samples, which are drawn again from their seeds."""
    pictures = sampled(pipeline, samples.labels, progress, samples.seeds)
    asked = {"real": data.held_out}
    device = str(pipeline.device)
    classes = len(data.class_names)
    found = scores_of(pictures, asked, classes, training, device, name, progress)
    return float(found["real"]["top1"])


def look_at_split(
    extractor: Extractor, pictures: Pictures, count: int, name: str, progress: Progress
) -> Seen:
    """What a network sees in pictures evenly spread over a split; kept in the cache."""
    what = f"{pictures.fingerprint()} {count}"
    return look_once(extractor, what, lambda: shown(pictures, count, name, progress))


def shown(pictures: Pictures, count: int, name: str, progress: Progress) -> Iterator[Tensor]:
    """Pictures uint8, evenly spread over a split, in batches."""
    done = 0
    for indices in spread(len(pictures), count).split(at_once(pictures.size)):
        yield pictures.batch(indices)
        done += len(indices)
        progress(name, done, count)


def reconstructed(
    pipeline: Pipeline, pictures: Pictures, count: int, progress: Progress
) -> Iterator[Tensor]:
    """The same pictures after the way through the codes, rounded to uint8 as files are."""
    for images in shown(pictures, count, "reconstructions", progress):
        yield to_uint8(pipeline.reconstruct(to_float(images)))


def draw(
    pipeline: Pipeline,
    extractor: Extractor,
    classes: int,
    count: int,
    wanted: SampleQuality,
    progress: Progress,
    draws: Sequence[Draw] | None = None,
) -> Drawn:
    """As many samples a class as the smallest fraction needs.

    In turn over the classes, seeds 0, 1, ... of each: the first so many are a fair set themselves.
    """
    each = math.ceil(count / classes / min(wanted.fractions) - 1e-9)
    labels = torch.arange(classes).repeat(each)
    seeds = torch.arange(each).repeat_interleave(classes)

    def pictures() -> Iterator[Tensor]:
        done = 0
        parts = pipeline.sample_batches(labels, seeds.tolist(), draws=draws, batch=wanted.batch)
        for part in parts:
            yield to_uint8(part.images)
            done += len(part.images)
            progress("samples", done, len(labels))

    return Drawn(labels, seeds, look(extractor, pictures()))


def best(drawn: Drawn, classes: int, count: int, fraction: float, name: str) -> Drawn:
    """Those that are kept of the first `count` / `fraction` samples."""
    first = math.ceil(count / classes / fraction - 1e-9) * classes
    if fraction == 1:
        return drawn.some(torch.arange(first))
    labels = drawn.labels[:first]
    scores = intended(drawn.seen.probabilities[:first], labels, classes, name)
    kept = keep_best(scores, labels, fraction)
    # Rounding up the draws may have left one too many of a class.
    places = [kept[labels[kept] == label][: count // classes] for label in range(classes)]
    return drawn.some(torch.cat(places).sort().values)


def recognised(seen: Seen, labels: Tensor, classes: int) -> dict[str, float]:
    """How often the network finds a picture's class the likeliest; {} if it knows others."""
    extra = seen.probabilities.shape[1] - classes
    if classes < 2 or extra not in (0, 1):
        return {}
    found = seen.probabilities[:, extra:].argmax(dim=1)
    return {"recognised": float((found == labels).double().mean())}


def show_neighbours(
    pipeline: Pipeline,
    data: PictureData,
    extractor: Extractor,
    samples: Drawn,
    progress: Progress = lambda text, done, total: None,
) -> Any:
    """Samples of different classes, each before its nearest training pictures: learnt by heart?

    Nearest among all training pictures, by the network's features.
    """
    train = data.train
    seen = look_at_split(extractor, train, len(train), "all training pictures", progress)
    chosen = torch.arange(min(SHOWN, len(samples.labels)))
    places, _ = nearest(samples.seen.features[chosen], seen.features, NEIGHBOURS)
    drawn = pipeline.sample(samples.labels[chosen], samples.seeds[chosen].tolist())
    rows = [
        torch.cat([image[None], to_float(train.batch(near))])
        for image, near in zip(to_float(to_uint8(drawn.images)), places, strict=True)
    ]
    names = [data.class_names[label] for label in samples.labels[chosen]] * bool(data.class_names)
    titles = ["drawn", "nearest"]
    return sheet(rows, names, titles, scale=max(1, 64 // train.size))


def quality_rows(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The sets of a network's figures in the order of a table, each with its name."""
    samples: Sequence[tuple[str, dict[str, Any]]] = [
        ("samples" if fraction == "1" else f"best {100 * float(fraction):g} % of samples", found)
        for fraction, found in figures["samples_by_kept_fraction"].items()
    ]
    cooler = [
        (f"samples at temperature {temperature}", found)
        for temperature, found in figures.get("samples_by_temperature", {}).items()
    ]
    return [
        ("held-out pictures", figures["held_out"]),
        ("reconstructions", figures["reconstructions"]),
        *samples,
        *cooler,
    ]


def distance_columns(name: str) -> list[str]:
    """The heads of `distance_row`, for a network's figures."""
    kid, score = f"KID-{name} x 1000", f"IS-{name}"
    return ["set", f"FID-{name}", kid, score, "precision", "recall", "recognised", "CAS"]


def distance_row(title: str, seen: dict[str, float]) -> list[str]:
    """The distances of a set to another; what was not measured is left empty."""
    return [
        title,
        f"{seen['fid']:.2f}",
        f"{1000 * seen['kid']:.2f} ± {1000 * seen['kid_deviation']:.2f}",
        f"{seen['inception_score']:.2f}",
        f"{seen['precision']:.3f}",
        f"{seen['recall']:.3f}",
        *(f"{100 * seen[key]:.1f} %" if key in seen else "" for key in SHARES),
    ]
