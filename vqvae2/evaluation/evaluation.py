"""The figures of a trained run: what its codes lose, and how well its priors know them.

`evaluate` writes metrics.json: every figure with the data, N, seed and versions it was taken with.
"""

import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version

import torch

import vqvae2
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodeDataset, open_codes
from vqvae2.data.images import ImageDataset, open_images, open_validation
from vqvae2.data.order import evenly_spaced, inference_batch_size
from vqvae2.data.pixels import PixelCodes
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.likelihood import bits_per_dim, nats_per_code
from vqvae2.metrics.results import Measurement, Provenance, RunMetrics
from vqvae2.pipeline import Pipeline
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.weights import code_fingerprint, fingerprint

TRAIN_IMAGES = 5000
"""Training images over which the train-validation gap is taken, at most."""


def evaluate(
    folder: RunFolder, limit: int = 10_000, device: str = "cpu", world: World = SINGLE_PROCESS
) -> RunMetrics:
    """Measures the models of a run on at most `limit` validation images; writes metrics.json.

    The results of other measurements in it stay.

    Arguments:
        ranks: who shares the work; the first writes.
    """
    run, pipeline = folder.read(), Pipeline.open(folder.path).to(device)
    validation = open_validation(run.data)
    chosen = evenly_spaced(len(validation), limit)
    reconstruction = priors = None
    if isinstance(pipeline.autoencoder, VQVAE):
        images = validation.batches(world.shard(chosen), device)
        reconstruction = measure_distortion(pipeline.autoencoder, images, world).measurement()
    if pipeline.priors:
        priors = evaluate_priors(folder, run, pipeline, limit, world)
    metrics = replace(
        folder.read_metrics(),
        provenance=provenance(run, pipeline, validation, len(chosen)),
        reconstruction=reconstruction,
        priors=priors,
    )
    if world.is_main:
        folder.write_metrics(metrics)
    return metrics


def evaluate_priors(
    folder: RunFolder,
    run: RunConfig,
    pipeline: Pipeline,
    limit: int,
    world: World = SINGLE_PROCESS,
) -> Measurement:
    """Nats per code of each level, held out and in training, and bits per image dimension."""
    train, validation = splits(folder, run, pipeline)
    levels = list(enumerate(pipeline.priors))
    # No more than a step took, and fewer where ranks shared it: a position is dear like 16 pixels.
    at_a_time = [
        max(
            1,
            min(
                stage.batch // stage.accumulate,
                inference_batch_size(4 * max(prior.domain.grid.shape)),
            ),
        )
        for stage, prior in zip(
            [level.training for level in run.levels], pipeline.priors, strict=False
        )
    ]
    nats = [
        nats_per_code(prior, level, validation, limit, at_a_time[level], world)
        for level, prior in levels
    ]
    seen = [
        nats_per_code(prior, level, train, TRAIN_IMAGES, at_a_time[level], world)
        for level, prior in levels
    ]
    counts = [prior.domain.num_values for prior in pipeline.priors]
    shape = (run.autoencoder.model.image_channels, run.data.size, run.data.size)
    per_level = {
        "validation_nats_per_code": tuple(nats),
        "train_nats_per_code": tuple(seen),
        "gap_nats_per_code": tuple(a - b for a, b in zip(nats, seen, strict=True)),
        "parameters": tuple(
            float(sum(p.numel() for p in prior.parameters())) for prior in pipeline.priors
        ),
    }
    values: dict[str, float | None] = {}
    if len(levels) == run.autoencoder.model.num_levels:
        values["validation_bits_per_dim"] = bits_per_dim(nats, counts, shape)
        per_level["validation_bits_per_dim"] = tuple(
            bits_per_dim([n], [count], shape) for n, count in zip(nats, counts, strict=True)
        )
    return Measurement(len(evenly_spaced(len(validation), limit)), values, per_level)


def splits(
    folder: RunFolder, run: RunConfig, pipeline: Pipeline
) -> tuple[CodeDataset, CodeDataset]:
    """The run's training and validation codes, or the images themselves for a prior on pixels."""
    if run.on_pixels:
        data = open_images(run.data)
        return PixelCodes(data.train), PixelCodes(data.validation)
    known = code_fingerprint(pipeline.autoencoder)
    train = open_codes(folder.codes, "train", known)
    return train, open_codes(folder.codes, "validation", known)


def provenance(
    run: RunConfig, pipeline: Pipeline, validation: ImageDataset, count: int
) -> Provenance:
    """The origin of a result on `count` of the validation images."""
    return Provenance(
        preset=run.preset,
        data=run.data.source,
        size=run.data.size,
        validation_images=count,
        images_fingerprint=validation.fingerprint(),
        seed=run.seed,
        models=tuple(fingerprints(pipeline)),
        versions=versions(),
        date=datetime.now(UTC).date().isoformat(),
    )


def versions() -> dict[str, str]:
    """The versions that compute results."""
    return {
        "vqvae2": vqvae2.__version__,
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchmetrics", "pillow")},
        "python": platform.python_version(),
    }


def fingerprints(pipeline: Pipeline) -> list[str]:
    """Those of the autoencoder and of each prior: figures are of these weights and no others."""
    return [fingerprint(model) for model in (pipeline.autoencoder, *pipeline.priors)]
