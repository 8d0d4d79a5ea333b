"""The figures of a trained run: what its codes lose, and how well its priors know them.

`evaluate` writes metrics.json: every figure with the data, N, seed and versions it was taken with.
"""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

import vqvae2
from vqvae2.autoencoder import VQVAE
from vqvae2.data.codes import Codes, open_codes
from vqvae2.data.images import Pictures, open_held_out, open_pictures
from vqvae2.data.order import at_once, spread
from vqvae2.data.pixels import PixelData
from vqvae2.metrics.distortion import figures, measure_distortion
from vqvae2.metrics.likelihood import bits_per_dim, nats_per_code
from vqvae2.pipeline import Pipeline
from vqvae2.ranks import ALONE, Ranks
from vqvae2.sheets import batches
from vqvae2.training.config import Run
from vqvae2.training.run import RunFolder
from vqvae2.weights import fingerprint

KEPT = ("quality", "classification_score", "detection")
"""Parts of metrics.json that are measured elsewhere in this folder."""

TRAIN_PICTURES = 5000
"""Training pictures over which the train-validation gap is taken, at most."""


def evaluate(
    folder: RunFolder, limit: int = 10_000, device: str = "cpu", ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Measures the models of a run on at most `limit` held-out pictures; writes metrics.json.

    What other measurements left there (`KEPT`) stays.

    Arguments:
        ranks: who shares the work; the first writes.
    """
    run, pipeline = folder.read(), Pipeline.load(folder.path).to(device)
    held_out = open_held_out(run.data)
    chosen = spread(len(held_out), limit)
    metrics: dict[str, Any] = {"provenance": provenance(run, pipeline, held_out, len(chosen))}
    if isinstance(pipeline.autoencoder, VQVAE):
        images = batches(held_out, ranks.part(chosen), device)
        measured = measure_distortion(pipeline.autoencoder, images, ranks)
        metrics["reconstruction"] = figures(measured)
    if pipeline.priors:
        metrics["priors"] = evaluate_priors(folder, run, pipeline, limit, ranks)
    known = folder.read_metrics()
    metrics |= {name: known[name] for name in KEPT if name in known}
    if ranks.first:
        folder.write_metrics(metrics)
    return metrics


def evaluate_priors(
    folder: RunFolder, run: Run, pipeline: Pipeline, limit: int, ranks: Ranks = ALONE
) -> dict[str, Any]:
    """Nats per code of each level, held out and in training, and bits per picture dimension."""
    train, held_out = splits(folder, run, pipeline)
    levels = list(enumerate(pipeline.priors))
    # No more than a step took, and fewer where ranks shared it: a position is dear like 16 pixels.
    at_a_time = [
        max(1, min(stage.batch // stage.accumulate, at_once(4 * max(prior.domain.grid))))
        for stage, prior in zip(run.stage2, pipeline.priors, strict=False)
    ]
    nats = [
        nats_per_code(prior, level, held_out, limit, at_a_time[level], ranks)
        for level, prior in levels
    ]
    seen = [
        nats_per_code(prior, level, train, TRAIN_PICTURES, at_a_time[level], ranks)
        for level, prior in levels
    ]
    counts = [prior.domain.num_values for prior in pipeline.priors]
    shape = (run.autoencoder.image_channels, run.data.size, run.data.size)
    result: dict[str, Any] = {
        "held_out_nats_per_code": nats,
        "train_nats_per_code": seen,
        "gap_nats_per_code": [a - b for a, b in zip(nats, seen, strict=True)],
        "parameters": [sum(p.numel() for p in prior.parameters()) for prior in pipeline.priors],
    }
    if len(levels) == run.autoencoder.num_levels:
        result["held_out_bits_per_dim"] = bits_per_dim(nats, counts, shape)
        result["held_out_bits_per_dim_level"] = [
            bits_per_dim([n], [count], shape) for n, count in zip(nats, counts, strict=True)
        ]
    return result


def splits(folder: RunFolder, run: Run, pipeline: Pipeline) -> tuple[Codes, Codes]:
    """The run's training and held-out codes, or the pictures themselves for a prior on pixels."""
    if run.on_pixels:
        data = open_pictures(run.data)
        return PixelData(data.train), PixelData(data.held_out)
    known = fingerprint(pipeline.autoencoder)
    train = open_codes(folder.codes, "train", known)
    return train, open_codes(folder.codes, "held_out", known)


def provenance(run: Run, pipeline: Pipeline, held_out: Pictures, count: int) -> dict[str, Any]:
    """What a figure must stand beside."""
    return {
        "preset": run.preset,
        "data": run.data.source,
        "size": run.data.size,
        "held_out_pictures": count,
        "pictures_fingerprint": held_out.fingerprint(),
        "seed": run.seed,
        "models": fingerprints(pipeline),
        **versions(),
    }


def versions() -> dict[str, str]:
    """What a figure was taken with, and when."""
    return {
        "vqvae2": vqvae2.__version__,
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchmetrics", "pillow")},
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def fingerprints(pipeline: Pipeline) -> list[str]:
    """Those of the autoencoder and of each prior: figures are of these weights and no others."""
    return [fingerprint(model) for model in (pipeline.autoencoder, *pipeline.priors)]
