"""`vqvae2 evaluate`: the figures of a run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve, share
from vqvae2.cli.display import (
    console,
    monitor,
    show_classification,
    show_detection,
    show_figures,
    show_quality,
)
from vqvae2.cli.options import parse, require_positive
from vqvae2.data.images import image_files
from vqvae2.evaluation.accuracy_score import evaluate_classification
from vqvae2.evaluation.evaluation import evaluate
from vqvae2.evaluation.out_of_distribution import evaluate_outside
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples, extractor_of
from vqvae2.metrics.accuracy_score import ClassifierTraining
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stages import stages


@dataclass(frozen=True)
class Options:
    """Measure a run: distortion, codes in use, likelihood, and if asked how good its samples are.

    Arguments:
        run: A run folder.
        limit: Validation images, at most; evenly spread over the classes.
        samples: Also draw so many samples and compare them with as many training images: FID,
            KID, inception score, precision and recall; at most as many as are held out.
        extractor: The network that compares: path or URL of a TorchScript file, hub:NAME, or own
            for a classifier trained on the run's images; the Inception network of the published
            figures by default, which is fetched once.
        extractor_name: What figures call it; the file's name by default.
        keep: Kept fractions of samples (classifier rejection), for instance 1 0.5 0.2 0.1 0.05;
            each is measured over --samples images, from more draws.
        judge: The classifier that chooses them, named as the extractor is; the extractor itself
            by default, which then measures what it has chosen.
        temperatures: Also measure --samples images drawn with these temperatures for all levels.
        cas: Also train classifiers on so many real images, reconstructions and samples, and ask
            each about the validation images: the classification accuracy score. With --samples,
            on each kept fraction of those too.
        score: How those classifiers are trained.
        outside: A folder of images of another kind: how well does the likelihood tell them from
            the validation ones?
        outside_limit: Images of each kind, at most.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    limit: int = 10_000
    samples: int = 0
    extractor: Annotated[str, tyro.conf.arg(metavar="NETWORK")] = ""
    extractor_name: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    keep: tuple[float, ...] = (1.0,)
    judge: Annotated[str, tyro.conf.arg(metavar="NETWORK")] = ""
    temperatures: tuple[float, ...] = ()
    cas: int = 0
    score: ClassifierTraining = field(default_factory=ClassifierTraining)
    outside: Annotated[str, tyro.conf.arg(metavar="FOLDER")] = ""
    outside_limit: int = 2000
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses, measures, prints."""
    options = parse(Options, "evaluate", arguments)
    folder = RunFolder(options.run)
    check(options, folder)
    world, device = share(resolve(options.device))
    console.quiet = not world.is_main
    extractor = judge = None
    # Before anything is measured: they may be missing.
    if options.samples:
        extractor = extractor_of(options.extractor, options.extractor_name, folder, device)
        # One network for both is loaded, or trained, once.
        if options.judge and options.judge != options.extractor:
            judge = extractor_of(options.judge, "", folder, device)
    show_figures(evaluate(folder, options.limit, device, world))
    with monitor(world.is_main) as view:
        if extractor is not None:
            score = options.score if options.cas else None
            wanted = SampleEvaluationConfig(
                options.samples, options.keep, options.temperatures, score
            )
            found = evaluate_samples(folder, extractor, wanted, device, view.track, judge, world)
            if world.is_main:
                show_quality(extractor.name, found)
            if found.validation.num_images < options.samples:
                console.print("No split has more; `vqvae2 compare` takes any number of samples.")
        if options.cas:
            scores = evaluate_classification(
                folder, options.cas, options.score, device, view.track, world
            )
            show_classification(scores)
        if options.outside:
            other, count = Path(options.outside), options.outside_limit
            detection = evaluate_outside(folder, other, count, device, view.track, world)
            show_detection(options.outside, detection)
    console.print(f"all figures in {options.run / 'metrics.json'}")


def check(options: Options, folder: RunFolder) -> None:
    """Raises ValueError for what would only fail after long work, or do nothing."""
    require_positive("limit", options.limit)
    require_positive("outside-limit", options.outside_limit)
    for name in ("samples", "cas"):
        if getattr(options, name) < 0:
            raise ValueError(f"--{name} is a number of images, got {getattr(options, name)}.")
    SampleEvaluationConfig(max(1, options.samples), options.keep, options.temperatures)
    for_samples = ("extractor", "extractor_name", "keep", "temperatures", "judge")
    given = [name for name in for_samples if getattr(options, name) != getattr(Options, name)]
    if given and not options.samples:
        raise ValueError(f"--{given[0].replace('_', '-')} needs --samples, the number to draw.")
    if options.score != ClassifierTraining() and not options.cas:
        raise ValueError("--score needs --cas, the number of images to learn from.")
    if options.judge and min(options.keep) == 1:
        raise ValueError("--judge chooses kept fractions: give some below 1 with --keep.")
    if options.cas and num_classes(folder) < 2:
        raise ValueError("--cas needs images of at least 2 classes; this run has none.")
    if options.outside:
        image_files(options.outside)
    run = folder.read()
    missing = [stage for stage in stages(run) if not stage.done(folder)]
    if (options.samples or options.cas or options.outside) and (missing or not run.levels):
        raise ValueError(
            f"Samples and likelihoods need the priors of all levels; run `vqvae2 train --run "
            f"{folder.path}` first."
        )


def num_classes(folder: RunFolder) -> int:
    """Classes of the run's images; 0 without labels."""
    summary = folder.read_data()
    return 0 if summary is None else len(summary.class_names)
