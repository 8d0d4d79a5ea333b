"""How well a run reconstructs its validation images, and how probable their codes are."""

from dataclasses import replace

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.likelihood import measure_likelihood
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.results import Measurement, RunMetrics


def evaluate(evaluation: Evaluation, limit: int = 10_000) -> RunMetrics:
    """Measures the models of a run on at most `limit` validation images; writes metrics.json.

    Returns:
        All results of the run; those of other measurements stay.
    """
    indices = evenly_spaced(len(evaluation.validation), limit)
    metrics = replace(
        evaluation.read(),
        provenance=evaluation.provenance(len(indices)),
        reconstruction=measure_reconstruction(evaluation, limit),
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
    return measure_distortion(autoencoder, images, world)
