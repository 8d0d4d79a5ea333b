"""Peak memory of an evaluation of samples with classifiers, at two numbers of samples.

    python benchmarks/memory.py

Each number is measured in a process of its own, after the images of the run are decoded; the
models are small and untrained. Samples are drawn and measured (FID, KID, precision, recall), a
classifier is trained on them, and the classification accuracy score is computed: classifiers of
real images, reconstructions and samples. Prints a table and writes JSON.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from processes import in_process, peak_mib, write_results

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig
from vqvae2.cli.display import console, table
from vqvae2.data.config import DataConfig
from vqvae2.evaluation.accuracy_score import evaluate_accuracy_score
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.samples import SampleEvaluationConfig, evaluate_samples
from vqvae2.metrics.classifier import ClassifierTraining, ResNet, as_extractor
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import demo
from vqvae2.sampling import SamplingConfig

NUM_CLASSES = 12


@dataclass(frozen=True)
class Options:
    """Measure the memory of an evaluation.

    Arguments:
        counts: Numbers of samples.
        size: Side of the built-in images.
        limit: Allowed ratio of the peaks of the last and the first number.
        out: JSON file.
    """

    counts: tuple[int, ...] = (2000, 20_000)
    size: int = 64
    limit: float = 1.1
    out: Path = Path("build/memory.json")


def new_pipeline(size: int) -> Pipeline:
    """A small untrained model of two levels."""
    torch.manual_seed(0)
    codebook = CodebookConfig(num_codes=32, code_size=8)
    model = VQVAEConfig(
        factors=(4, 8), channels=16, residual_channels=8, num_residual_blocks=1,
        codebooks=(codebook,),
    )  # fmt: skip
    grids = model.grids(size, size)
    config = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    priors = [
        Prior(config, Domain(grid=grid, coarser=tuple(grids[:level]), num_classes=NUM_CLASSES))
        for level, grid in enumerate(grids)
    ]
    names = tuple(map(str, range(NUM_CLASSES)))
    settings = PipelineConfig(
        image_size=size, class_names=names, sampling=(SamplingConfig(),) * len(grids)
    )
    return Pipeline(VQVAE(model).eval(), settings, [prior.eval() for prior in priors])


def measure(count: int, num_images: int, size: int) -> dict[str, float]:
    """MiB before and at the peak of an evaluation of so many samples, and its seconds."""
    data = DataConfig(size=size, synthetic_images=num_images, validation_fraction=0.1)
    training = ClassifierTraining(depth=8, steps=10, batch=64)
    with tempfile.TemporaryDirectory(prefix="vqvae2-memory-") as folder:
        run = replace(demo(), data=data)
        evaluation = Evaluation(RunFolder(Path(folder)), run, new_pipeline(size))
        assert len(evaluation.splits.train) >= count
        before, start = peak_mib(), time.perf_counter()
        extractor = as_extractor(ResNet(NUM_CLASSES, 8, size).eval(), "untrained")
        config = SampleEvaluationConfig(count, (1.0,), (), training)
        evaluate_samples(evaluation, extractor, config)
        samples = peak_mib()
        evaluate_accuracy_score(evaluation, count, training)
        seconds = time.perf_counter() - start
    return {"images": before, "samples": samples, "peak": peak_mib(), "seconds": seconds}


def main() -> None:
    options = tyro.cli(Options)
    # The same images in each process, with as many for training as the most samples.
    num_images = round(max(options.counts) / 0.88)
    results, rows = {}, []
    for count in options.counts:
        result = in_process(measure, count, num_images, options.size)
        results[f"{count}"] = result
        mib = [f"{result[name]:,.0f}" for name in ("images", "samples", "peak")]
        rows.append([f"{count:,}", *mib, f"{result['seconds']:.0f} s"])
    columns = ["samples", "MiB with the images alone", "after samples", "after CAS", "time"]
    table(f"peak memory of an evaluation at {options.size}x{options.size}", columns, rows)
    write_results(options.out, results)
    first, *_, last = (results[f"{count}"]["peak"] for count in options.counts)
    console.print(f"The last peak is {last / first:.3f} times the first.")
    raise SystemExit(last > options.limit * first)


if __name__ == "__main__":
    main()
