"""`vqvae2 evaluate`: the metrics of a run."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from vqvae2.cli.device import AUTO, share
from vqvae2.cli.display import console, monitor, show_metrics, show_table
from vqvae2.cli.options import (
    Device,
    RunPath,
    optional,
    parse,
    require_positive,
    require_writable,
)
from vqvae2.data.images import image_files
from vqvae2.evaluation.accuracy_score import evaluate_accuracy_score
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.evaluation.out_of_distribution import evaluate_out_of_distribution
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples
from vqvae2.evaluation.two_sample import TRAINING, evaluate_two_sample
from vqvae2.evaluation.validation import evaluate
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.metrics.extractors import Extractor
from vqvae2.pipeline import DecoderName
from vqvae2.report.tables import (
    accuracy_table,
    detection_table,
    sample_table,
    two_sample_table,
)
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stage import is_saved


@dataclass(frozen=True)
class Options:
    """Measure a run: reconstruction error, codes in use, likelihood; samples only on request.

    Arguments:
        run: A run folder.
        limit: Maximum number of validation images; they are taken evenly from the set.
        test: Measure on these images in place of the validation images, which chose the weights:
            a folder with the classes of the run, or any other source of images.
        samples: Also draw this number of samples and compare them with as many training images:
            FID, KID, inception score, precision and recall. At most as many as there are
            training images.
        extractor: The network that compares images: path or URL of a TorchScript file, hub:NAME,
            efficientnet-lite0, or own to train a classifier on the images of the run. The default
            is the Inception network of published results, which is downloaded once.
        extractor_name: Name of the network in the results; its file name by default.
        keep: Fractions of samples to measure, for instance 1 0.5 0.2 0.1 0.05. For a fraction
            below 1 more samples are drawn, and a classifier selects the best --samples of
            them: classifier rejection.
        judge: The classifier that selects samples, named like the extractor. The default is the
            extractor itself, which then measures its own selection.
        temperatures: Also measure --samples images drawn with each of these temperatures.
        cas: Also train classifiers on this number of real images, reconstructions and samples, and
            test them on validation images (classification accuracy score). With --samples also
            for each fraction of --keep.
        score: How those classifiers are trained.
        two_sample: Also train classifiers to tell this number of real images from reconstructions
            and from samples, and print how often they are right (AUROC; 0.5 is chance).
        outside: A folder of other images. Also measure how well the likelihood separates them from
            validation images (out-of-distribution detection).
        outside_limit: Maximum number of images of each kind for --outside.
        decoder: plain or sharp: what decodes samples and reconstructions; by default sharp where
            the run has trained one.
        out: Folder for metrics.json; by default RUN.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    run: RunPath
    limit: int = 10_000
    test: Annotated[str, optional("SOURCE")] = ""
    samples: int = 0
    extractor: Annotated[str, optional("NETWORK")] = ""
    extractor_name: Annotated[str, optional("NAME")] = ""
    keep: tuple[float, ...] = (1.0,)
    judge: Annotated[str, optional("NETWORK")] = ""
    temperatures: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    cas: int = 0
    score: ClassifierTraining = field(default_factory=ClassifierTraining)
    two_sample: int = 0
    outside: Annotated[str, optional("FOLDER")] = ""
    outside_limit: int = 2000
    decoder: Annotated[DecoderName, optional("NAME")] = ""
    out: Annotated[str, optional("FOLDER")] = ""
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(Options, "evaluate", arguments)
    folder = RunFolder(options.run, Path(options.out) if options.out else None)
    require_writable(folder.results, "--out FOLDER")
    check(options, folder)
    world, device = share(options.device)
    console.quiet = not world.is_main
    with monitor(world.is_main) as view:
        # Networks are opened before anything is measured: they may be missing.
        extractor = selector = None
        if options.samples:
            name = options.extractor_name
            extractor = extractor_for(folder, options.extractor, name, device, view.track)
            if options.judge and options.judge != options.extractor:
                selector = extractor_for(folder, options.judge, "", device, view.track)
        evaluation = Evaluation.open(folder, device, world, view.track, options.decoder)
        evaluation = replace(evaluation, test=options.test)
        if extractor is not None:
            evaluation.require_independent(extractor)
        show_metrics(evaluate(evaluation, options.limit))
        if extractor is not None:
            measure_samples(evaluation, options, extractor, selector)
        if options.cas:
            score = evaluate_accuracy_score(evaluation, options.cas, options.score)
            show_table(accuracy_table(score, len(score.class_names)))
        if options.two_sample:
            show_table(two_sample_table(evaluate_two_sample(evaluation, options.two_sample)))
        if options.outside:
            outside, limit = Path(options.outside), options.outside_limit
            result = evaluate_out_of_distribution(evaluation, outside, limit)
            show_table(detection_table(options.outside, result))
    console.print(f"results in {folder.results / 'metrics.json'}")


def measure_samples(
    evaluation: Evaluation, options: Options, extractor: Extractor, selector: Extractor | None
) -> None:
    """Measures samples and prints the results."""
    score = options.score if options.cas else None
    config = SampleEvaluationConfig(options.samples, options.keep, options.temperatures, score)
    result = evaluate_samples(evaluation, extractor, config, selector)
    show_table(sample_table(extractor.name, result))
    if (number := result.num_samples) < options.samples:
        console.print(
            f"There are only {number:,} training images; `vqvae2 compare` can compare more "
            "samples."
        )


def check(options: Options, folder: RunFolder) -> None:
    """Raises ValueError for options that would fail after long work, or have no effect."""
    require_positive("limit", options.limit)
    require_positive("outside-limit", options.outside_limit)
    for name in ("samples", "cas", "two_sample"):
        if (number := getattr(options, name)) < 0:
            raise ValueError(f"--{name.replace('_', '-')} is a number of images, got {number}.")
    if 0 < options.two_sample < TRAINING.batch:
        raise ValueError(
            f"--two-sample needs at least {TRAINING.batch} images, got {options.two_sample}."
        )
    SampleEvaluationConfig(max(1, options.samples), options.keep, options.temperatures)
    defaults = Options(options.run)
    for name in ("extractor", "extractor_name", "keep", "judge", "temperatures"):
        if not options.samples and getattr(options, name) != getattr(defaults, name):
            option = name.replace("_", "-")
            raise ValueError(f"--{option} needs --samples, the number of samples to draw.")
    if options.score != ClassifierTraining() and not options.cas:
        raise ValueError("--score needs --cas, the number of training images.")
    if options.judge and min(options.keep) == 1:
        raise ValueError("--judge selects fractions of samples: give some below 1 with --keep.")
    summary = folder.read_data()
    if options.cas and (summary is None or len(summary.class_names) < 2):
        raise ValueError("--cas needs images of at least 2 classes; this run has none.")
    if options.outside:
        image_files(options.outside)
    if options.samples or options.cas or options.two_sample or options.outside:
        require_priors(folder)


def require_priors(folder: RunFolder) -> None:
    """Raises ValueError unless the priors of all levels are trained."""
    levels = range(len(folder.read().levels))
    if not levels or not all(is_saved(folder.prior(level)) for level in levels):
        raise ValueError(
            "Samples and likelihoods need the priors of all levels: run "
            f"`vqvae2 train --run {folder.path}` first."
        )
