"""`vqvae2 evaluate`: the figures of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console, monitor, show_figures, show_quality
from vqvae2.cli.parse import parse
from vqvae2.cli.sample import at_least_one
from vqvae2.metrics.features import open_extractor
from vqvae2.training.evaluate import evaluate
from vqvae2.training.quality import SampleQuality, evaluate_samples
from vqvae2.training.run import RunFolder


@dataclass(frozen=True)
class Options:
    """Measure a run: distortion, codes in use, likelihood, and with --samples how good those are.

    Arguments:
        run: A run folder.
        limit: Held-out pictures, at most; evenly spread over the classes.
        samples: Also draw so many samples and compare them with as many training pictures: FID,
            KID, inception score, precision and recall.
        extractor: The network that compares: path or URL of a TorchScript file, or hub:NAME; the
            Inception network of the published figures by default, which is fetched once.
        extractor_name: What figures call it; the file's name by default.
        keep: Kept fractions of samples (classifier rejection by the extractor), for instance
            1 0.5 0.2 0.1 0.05; each is measured over --samples pictures, from more draws.
        device: cpu, cuda, cuda:1, mps; the best there is by default.
    """

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    limit: int = 10_000
    samples: int = 0
    extractor: Annotated[str, tyro.conf.arg(metavar="NETWORK")] = ""
    extractor_name: Annotated[str, tyro.conf.arg(metavar="NAME")] = ""
    keep: tuple[float, ...] = (1.0,)
    device: str = AUTO


def main(arguments: list[str]) -> None:
    """Parses, measures, prints."""
    options = parse(Options, "evaluate", arguments)
    at_least_one("limit", options.limit)
    folder, device = RunFolder(options.run), resolve(options.device)
    extractor, wanted = None, SampleQuality(max(1, options.samples), options.keep)
    if options.samples or options.extractor:
        at_least_one("samples", options.samples)
        # Before anything is measured: it may be missing.
        extractor = open_extractor(options.extractor, options.extractor_name, device)
    show_figures(evaluate(folder, options.limit, device))
    if extractor is not None:
        with monitor() as view:
            figures = evaluate_samples(folder, extractor, wanted, device, view.pictures)
        show_quality(extractor.name, figures)
    console.print(f"all figures in {options.run / 'metrics.json'}")
