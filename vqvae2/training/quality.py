"""How good a run's samples are, by the paper's instruments (Sec. 4.2, 4.3).

Everything is measured against the same number of training pictures, through one network: held-out
pictures (what could be reached), their reconstructions (what the codes allow), and samples, all of
them and the best fractions by classifier rejection. Every set has the same number of pictures, so
smaller fractions are chosen from more draws.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.images import PictureData, Pictures, open_pictures
from vqvae2.data.order import at_once, spread
from vqvae2.metrics.features import Extractor
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.quality import Seen, distances_between, look
from vqvae2.metrics.rejection import intended, keep_best
from vqvae2.pipeline import Pipeline
from vqvae2.sheets import to_float, to_uint8
from vqvae2.training.run import RunFolder

Progress = Callable[[str, int, int], None]

FRACTIONS = (1.0, 0.5, 0.2, 0.1, 0.05)
"""Kept fractions of a whole sweep."""


@dataclass(frozen=True)
class SampleQuality:
    """What is measured.

    Arguments:
        count: pictures in every set, at most as many as the smaller split has.
        fractions: kept fractions of samples, in (0, 1]; below 1 the extractor must know the
            classes.
        batch: samples drawn at a time.
    """

    count: int = 10_000
    fractions: tuple[float, ...] = (1.0,)
    batch: int = 256

    def __post_init__(self) -> None:
        """Refuses fractions that are none."""
        wrong = [fraction for fraction in self.fractions if not 0 < fraction <= 1]
        if wrong or not self.fractions:
            raise ValueError(f"Kept fractions must be in (0, 1], got {wrong or 'none'}.")


def evaluate_samples(
    folder: RunFolder,
    extractor: Extractor,
    wanted: SampleQuality,
    device: str = "cpu",
    progress: Progress = lambda text, done, total: None,
) -> dict[str, Any]:
    """Measures the samples of a run; keeps the figures in metrics.json, beside other networks'."""
    pipeline = Pipeline.load(folder.path).to(device)
    data = open_pictures(folder.read().data, progress=progress)
    figures = measure_quality(pipeline, data, extractor, wanted, progress)
    metrics = folder.read_metrics()
    metrics["quality"] = {**metrics.get("quality", {}), extractor.name: figures}
    folder.write_metrics(metrics)
    return figures


def measure_quality(
    pipeline: Pipeline,
    data: PictureData,
    extractor: Extractor,
    wanted: SampleQuality,
    progress: Progress = lambda text, done, total: None,
) -> dict[str, Any]:
    """All figures of a pipeline's samples, as metrics.json keeps them under the network's name."""
    classes = max(1, len(data.class_names))
    count = min(wanted.count, len(data.train), len(data.held_out)) // classes * classes
    if count < classes * 4:
        raise ValueError(
            f"Measuring samples needs at least 4 pictures a class in each split, got {count} for "
            f"{classes} classes."
        )
    real = look(extractor, shown(data.train, count, "training pictures", progress))
    held_out = look(extractor, shown(data.held_out, count, "held-out pictures", progress))
    restored = look(extractor, reconstructed(pipeline, data.held_out, count, progress))
    labels, drawn = draw(pipeline, extractor, classes, count, wanted, progress)
    samples: dict[str, Any] = {}
    for fraction in sorted(wanted.fractions, reverse=True):
        kept = drawn.some(best(drawn, labels, classes, count, fraction, extractor.name))
        samples[f"{fraction:g}"] = {
            **distances_between(real, kept),
            "fid_against_reconstructions": frechet_distance([restored.features], [kept.features]),
        }
        progress("comparing", len(samples), len(wanted.fractions))
    return {
        "sha256": extractor.digest,
        "num_pictures": count,
        "held_out": distances_between(real, held_out),
        "reconstructions": distances_between(real, restored),
        "samples_by_kept_fraction": samples,
    }


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
) -> tuple[Tensor, Seen]:
    """As many samples a class as the smallest fraction needs: their labels, and what was seen.

    In turn over the classes, seeds 0, 1, ... of each: the first so many are a fair set themselves.
    """
    each = math.ceil(count / classes / min(wanted.fractions) - 1e-9)
    labels = torch.arange(classes).repeat(each)
    seeds = torch.arange(each).repeat_interleave(classes).tolist()

    def pictures() -> Iterator[Tensor]:
        done = 0
        for part in pipeline.sample_batches(labels, seeds, batch=wanted.batch):
            yield to_uint8(part.images)
            done += len(part.images)
            progress("samples", done, len(labels))

    return labels, look(extractor, pictures())


def best(
    drawn: Seen, labels: Tensor, classes: int, count: int, fraction: float, name: str
) -> Tensor:
    """Which samples are kept of the first `count` / `fraction` draws."""
    first = math.ceil(count / classes / fraction - 1e-9) * classes
    if fraction == 1:
        return torch.arange(first)
    scores = intended(drawn.probabilities[:first], labels[:first], classes, name)
    kept = keep_best(scores, labels[:first], fraction)
    # Rounding up the draws may have left one too many of a class.
    places = [kept[labels[kept] == label][: count // classes] for label in range(classes)]
    return torch.cat(places).sort().values


def quality_rows(figures: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The sets of a network's figures in the order of a table, each with its name."""
    samples: Sequence[tuple[str, dict[str, Any]]] = [
        ("samples" if fraction == "1" else f"best {100 * float(fraction):g} % of samples", found)
        for fraction, found in figures["samples_by_kept_fraction"].items()
    ]
    return [
        ("held-out pictures", figures["held_out"]),
        ("reconstructions", figures["reconstructions"]),
        *samples,
    ]
