"""How much of an image the codes preserve: errors of reconstructed validation images."""

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.results import Measurement


def measure_reconstruction(evaluation: Evaluation, limit: int) -> Measurement | None:
    """Errors and codebook usage over at most `limit` validation images; None without codes."""
    autoencoder, world = evaluation.pipeline.autoencoder, evaluation.world
    if not isinstance(autoencoder, VQVAE):
        return None
    indices = world.shard(evenly_spaced(len(evaluation.validation), limit))
    images = evaluation.validation.batches(indices, evaluation.device)
    return measure_distortion(autoencoder, images, world)
