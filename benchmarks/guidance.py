"""Guidance and temperature of a run, chosen by training images and by no judge of the results.

    python benchmarks/guidance.py --run RUN --settings 1/1 2/1.25 3/1.5 4/2 3/1.5@0.9 --images 1000

Each setting is one guidance per level, coarsest first, and after @ a temperature for all levels.
Samples of every setting have the same classes and seeds. They are compared with as many training
images through a classifier that is trained for this purpose on the training images, or another
network; the network that reports results afterwards must be a third one. Prints a table and writes
JSON.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from processes import write_results

from vqvae2.cli.display import console, monitor, table
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.extractor import TRAINED, extractor_for
from vqvae2.evaluation.image_sets import dataset_images, sample_seeds, sampled_images
from vqvae2.metrics.extractors import Extractor
from vqvae2.metrics.features import Features, distances_between, extract_features
from vqvae2.runs.folder import RunFolder
from vqvae2.sampling import SamplingConfig

COLUMNS = {
    "fid": "FID",
    "class_accuracy": "recognised",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}


@dataclass(frozen=True)
class Options:
    """Compare settings of sampling.

    Arguments:
        run: A trained run with classes.
        settings: Guidance per level, joined by "/", and "@" with a temperature.
        extractor: Path or URL of a network, or own.
        images: Samples of each setting.
        first_seed: Of the samples; results are reported with other seeds.
        out: JSON file.
    """

    run: Path
    settings: tuple[str, ...] = ("1/1", "2/1.25", "3/1.5", "4/2")
    extractor: str = TRAINED
    images: int = 1000
    first_seed: int = 1_000_000
    out: Path = Path("build/guidance.json")


def parse(setting: str, defaults: tuple[SamplingConfig, ...]) -> list[SamplingConfig]:
    """The configs of the levels that "3/1.5@0.9" stands for."""
    weights, _, temperature = setting.partition("@")
    guidance = [float(weight) for weight in weights.split("/")]
    if len(guidance) != len(defaults):
        raise SystemExit(f"Expected one guidance for each of {len(defaults)} levels: {setting}.")
    return [
        replace(config, guidance=weight, temperature=float(temperature or config.temperature))
        for config, weight in zip(defaults, guidance, strict=True)
    ]


def measure(
    evaluation: Evaluation, extractor: Extractor, real: Features, options: Options, setting: str
) -> dict[str, float]:
    """The metrics of samples with one setting."""
    sampling = parse(setting, evaluation.config.sampling)
    num_classes = evaluation.pipeline.num_classes
    labels = torch.arange(options.images) % num_classes
    seeds = sample_seeds(labels, num_classes) + options.first_seed
    batches = sampled_images(evaluation, labels, seeds, sampling, f"samples {setting}")
    samples = extract_features(extractor, batches)
    measurement = distances_between(real, samples)
    measurement = measurement.add(class_accuracy=samples.class_accuracy(labels, num_classes))
    values = measurement.flat()
    return {name: values[name] for name in COLUMNS if name in values}


def main() -> None:
    options = tyro.cli(Options)
    with monitor() as view:
        evaluation = Evaluation.open(RunFolder(options.run), progress=view.track)
        extractor = extractor_for(evaluation.folder, options.extractor)
        train = evaluation.splits.train
        chosen = evenly_spaced(len(train), options.images)
        batches = dataset_images(train, chosen, "training images", view.track)
        real = extract_features(extractor, batches)
        results = {
            setting: measure(evaluation, extractor, real, options, setting)
            for setting in options.settings
        }
    rows = [
        [setting, *(f"{values[name]:.3f}" for name in COLUMNS if name in values)]
        for setting, values in results.items()
    ]
    names = [COLUMNS[name] for name in next(iter(results.values()))]
    title = f"{options.images} samples per setting against training images, by {extractor.name}"
    table(title, ["guidance", *names], rows)
    write_results(options.out, results)
    console.print(f"results in {options.out}")


if __name__ == "__main__":
    main()
