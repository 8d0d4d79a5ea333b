"""How well the priors predict codes: nats per code of each level, and bits per image dimension."""

import numpy as np
import torch

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.codes import CodeArray, CodeDataset, CodesInMemory, PixelCodes, open_codes
from vqvae2.data.extraction import describe_codes, encoded_batches
from vqvae2.data.images import ImageDataset
from vqvae2.data.order import evenly_spaced, inference_batch_size
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.metrics.likelihood import bits_per_dim, nats_per_code
from vqvae2.metrics.results import Measurement
from vqvae2.precision import computing
from vqvae2.weights import code_fingerprint

TRAIN_IMAGES = 5000
"""Training images of the gap between training and validation, at most."""


def measure_likelihood(evaluation: Evaluation, limit: int) -> Measurement | None:
    """Nats per code of training and validation images; None without priors.

    Bits per image dimension need the priors of all levels.

    Arguments:
        evaluation: the run.
        limit: validation images, at most.
    """
    priors, config = evaluation.pipeline.priors, evaluation.config
    if not priors:
        return None
    train, validation = code_splits(evaluation)
    nats = level_nats(evaluation, validation, limit)
    train_nats = level_nats(evaluation, train, TRAIN_IMAGES, config.augmentation.count)
    per_level = {
        "validation_nats_per_code": nats,
        "train_nats_per_code": train_nats,
        "gap_nats_per_code": tuple(a - b for a, b in zip(nats, train_nats, strict=True)),
        "parameters": tuple(float(sum(w.numel() for w in prior.parameters())) for prior in priors),
    }
    values: dict[str, float | None] = {}
    if len(priors) == config.autoencoder.model.num_levels:
        counts = [prior.domain.num_values for prior in priors]
        shape = (config.autoencoder.model.image_channels, config.data.size, config.data.size)
        values["validation_bits_per_dim"] = bits_per_dim(nats, counts, shape)
        per_level["validation_bits_per_dim"] = tuple(
            bits_per_dim([n], [count], shape) for n, count in zip(nats, counts, strict=True)
        )
    return Measurement(len(evenly_spaced(len(validation), limit)), values, per_level)


def level_nats(
    evaluation: Evaluation, codes: CodeDataset, limit: int, every: int = 1
) -> tuple[float, ...]:
    """Mean nats per code of each level over at most `limit` images, one of `every` examples."""
    nats = []
    for prior, config in zip(evaluation.pipeline.priors, evaluation.config.levels, strict=False):
        # At most the batch of a training step; one position costs as much memory as 16 pixels.
        memory = inference_batch_size(4 * max(prior.domain.grid.shape))
        batch = max(1, min(config.training.batch // config.training.accumulate, memory))
        with computing(evaluation.config.precision, prior.device):
            nats.append(nats_per_code(prior, codes, limit, batch, evaluation.world, every))
    return tuple(nats)


def code_splits(evaluation: Evaluation) -> tuple[CodeDataset, CodeDataset]:
    """The training and validation codes; the images themselves for a prior on pixels."""
    if evaluation.config.on_pixels:
        return PixelCodes(evaluation.splits.train), PixelCodes(evaluation.splits.validation)
    codes, known = evaluation.folder.codes, code_fingerprint(evaluation.pipeline.autoencoder)
    train = open_codes(codes, "train", known)
    if evaluation.test:
        return train, encoded(evaluation, evaluation.validation)
    return train, open_codes(codes, "validation", known)


def encoded(evaluation: Evaluation, dataset: ImageDataset) -> CodesInMemory:
    """The codes of images that the run did not extract."""
    autoencoder = evaluation.pipeline.autoencoder
    assert isinstance(autoencoder, VQVAE), "pixels are their own codes"
    info = describe_codes(autoencoder, dataset)
    batches = []
    for codes in encoded_batches(autoencoder, dataset, torch.arange(len(dataset))):
        batches.append(codes)
        done = sum(len(each[0]) for each in batches)
        evaluation.progress("codes of test images", done, len(dataset))
    levels: list[CodeArray] = [
        torch.cat(maps).numpy().astype(np.uint32) for maps in zip(*batches, strict=True)
    ]
    return CodesInMemory(info, levels, dataset.labels)
