"""How well a run reconstructs its validation images, and how probable their codes are."""

from dataclasses import replace

import torch

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.likelihood import measure_likelihood
from vqvae2.metrics.distortion import measure_distortion, named_errors, pair_errors
from vqvae2.metrics.results import Measurement, RunMetrics
from vqvae2.metrics.sharpness import MeanSharpness
from vqvae2.pipeline import DecoderName
from vqvae2.transfers import to_device

SHARPNESS_METRICS = ("spectral_distance_db", "gradient_distance")


def evaluate(evaluation: Evaluation, limit: int = 10_000) -> RunMetrics:
    """Measures the models of a run on at most `limit` validation images; writes metrics.json.

    Returns:
        All results of the run; those of other measurements stay.
    """
    indices = evenly_spaced(len(evaluation.validation), limit)
    sharp = None
    if evaluation.pipeline.sharp_decoder is not None:
        sharp = measure_decoder(evaluation, limit, "sharp")
    metrics = replace(
        evaluation.read(),
        provenance=evaluation.provenance(len(indices)),
        reconstruction=measure_reconstruction(evaluation, limit),
        sharp_reconstruction=sharp,
        priors=measure_likelihood(evaluation, limit),
    )
    evaluation.write(metrics)
    return metrics


def measure_reconstruction(evaluation: Evaluation, limit: int) -> Measurement | None:
    """Errors and codebook usage over at most `limit` validation images; None without codes."""
    autoencoder, world = evaluation.pipeline.autoencoder, evaluation.world
    if not isinstance(autoencoder, VQVAE):
        return None
    indices = world.shard(evenly_spaced(len(evaluation.validation), limit))
    images = evaluation.validation.batches(indices, evaluation.device)
    measurement = measure_distortion(autoencoder, images, world)
    if evaluation.pipeline.sharp_decoder is None:
        return measurement
    plain = measure_decoder(evaluation, limit, "plain")
    return measurement.add(**{name: plain[name] for name in SHARPNESS_METRICS})


@torch.no_grad()
def measure_decoder(evaluation: Evaluation, limit: int, decoder: DecoderName) -> Measurement:
    """Errors of reconstructions by one decoder, and how sharp they are."""
    world = evaluation.world
    indices = world.shard_nonempty(evenly_spaced(len(evaluation.validation), limit))
    originals, decodings = MeanSharpness(), MeanSharpness()
    totals = torch.zeros(4, dtype=torch.float64)
    for images in evaluation.validation.batches(indices, evaluation.device):
        decoded = evaluation.pipeline.reconstruct_batch(images, decoder)
        errors = pair_errors(images, decoded)
        sums = torch.cat([errors.new_ones(1), errors]) * len(images)
        totals = sums + to_device(totals.to(sums.dtype), sums.device)
        originals.add(images)
        decodings.add(decoded)
    totals = world.sum(totals)
    values = named_errors(totals[1:] / totals[0])
    distances = originals.mean(world).distances(decodings.mean(world))
    return Measurement(int(totals[0]), {**values, **distances})
