"""Noise of samples: independent between classes against shared by them, by FID and equal codes.

    python benchmarks/noise.py --run runs/demo --extractor NETWORK.pt

`evaluate` gives sample n of class c of K the seed n K + c, so no two samples have equal noise.
With seed n in every class, samples of different classes resemble one another: the set has fewer
different images, and its FID is too high. Both sets are compared with the same training images;
every repetition uses other seeds. Prints a table and writes JSON.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from processes import write_results
from torch import Tensor

from vqvae2.cli.display import console, table
from vqvae2.data.images import quiet
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.extractor import TRAINED, extractor_for
from vqvae2.evaluation.image_sets import dataset_images, index_in_class, sample_seeds
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import cached_features, extract_features
from vqvae2.metrics.fid import frechet_distance
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Options:
    """Compare independent with shared noise.

    Arguments:
        run: A trained run with classes.
        extractor: Path or URL of a network, or own.
        per_class: Samples of each class.
        repeats: Sets of other seeds.
        out: JSON file.
    """

    run: Path
    extractor: str = TRAINED
    per_class: int = 25
    repeats: int = 5
    out: Path = Path("build/noise.json")


def equal_codes(codes: Tensor, labels: Tensor, num_classes: int) -> float:
    """Share of positions at which samples of the same number of two classes have equal codes.

    Arguments:
        codes: (N, H, W), sorted by class.
        labels: (N,), as many of each class.
    """
    maps = codes.view(num_classes, -1, *codes.shape[1:])
    equal = (maps[:, None] == maps[None]).double().flatten(2).mean(dim=2)
    others = ~torch.eye(num_classes, dtype=torch.bool)
    return float(equal[others].mean())


def measure(
    evaluation: Evaluation, extractor: Extractor, real: Tensor, labels: Tensor, seeds: Tensor
) -> list[float]:
    """FID, and the share of equal codes per level."""
    batches = list(evaluation.pipeline.sample_batches(labels, seeds, batch=100))
    features = extract_features(extractor, (to_uint8(batch.images) for batch in batches))
    levels = zip(*(batch.codes for batch in batches), strict=True)
    shares = [
        equal_codes(torch.cat(maps).cpu(), labels, evaluation.pipeline.num_classes)
        for maps in levels
    ]
    return [frechet_distance([real], [features.features]), *shares]


def main() -> None:
    options = tyro.cli(Options)
    evaluation = Evaluation.open(RunFolder(options.run))
    extractor = extractor_for(evaluation.folder, options.extractor)
    num_classes, train = evaluation.pipeline.num_classes, evaluation.splits.train
    labels = torch.arange(num_classes).repeat_interleave(options.per_class)
    chosen = evenly_spaced(len(train), len(labels))
    real = cached_features(extractor, lambda: dataset_images(train, chosen, "images", quiet))
    seeds = {"independent": sample_seeds(labels, num_classes), "shared": index_in_class(labels)}
    results: dict[str, list[list[float]]] = {name: [] for name in seeds}
    for repeat in range(options.repeats):
        for name, numbers in seeds.items():
            others = numbers + repeat * len(labels)
            values = measure(evaluation, extractor, real.features, labels, others)
            results[name].append(values)
    rows = []
    for name, repeats in results.items():
        values = torch.tensor(repeats, dtype=torch.float64)
        mean, deviation = (
            values.mean(dim=0).tolist(),
            values.std(dim=0, unbiased=len(values) > 1).tolist(),
        )
        shares = [f"{share:.1%}" for share in mean[1:]]
        rows.append([name, f"{mean[0]:.4f} ± {deviation[0]:.4f}", *shares])
    levels = [f"equal at level {level}" for level in range(len(evaluation.pipeline.priors))]
    title = f"{num_classes} x {options.per_class} samples, {options.repeats} sets of seeds"
    table(title, ["noise", f"FID-{extractor.name}", *levels], rows)
    write_results(options.out, results)
    console.print(f"results in {options.out}")


if __name__ == "__main__":
    main()
