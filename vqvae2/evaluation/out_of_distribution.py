"""Out-of-distribution detection: does a run's likelihood separate its images from others?

Images from elsewhere have none of the classes that the priors know, so no label is used on either
side: p(codes) is the mean of p(codes | class) over all classes. `metrics.auroc` says what is known
to be wrong with such scores.

Legend: `B N` images.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.autoencoder.pixels import Pixels
from vqvae2.data.images import ImageDataset, load_images
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.auroc import auroc
from vqvae2.metrics.results import Detection, OutOfDistribution
from vqvae2.pipeline import Pipeline
from vqvae2.precision import exact
from vqvae2.transfers import arrivals, to_device

BATCH = 32


def evaluate_out_of_distribution(
    evaluation: Evaluation, outside: Path, limit: int = 2000
) -> OutOfDistribution:
    """AUROC of validation images against those of a folder; writes metrics.json.

    Arguments:
        evaluation: the run.
        outside: a folder of images, cropped and resized to the run's size.
        limit: images of each side, at most; evenly spaced.
    """
    others = load_images(outside, evaluation.config.data.size, progress=evaluation.progress)
    validation_scores = image_scores(evaluation, evaluation.validation, limit, "validation images")
    other_scores = image_scores(evaluation, others, limit, "other images")
    pairs = {name: (inside, other_scores[name]) for name, inside in validation_scores.items()}
    scores = {
        name: Detection(auroc(inside, other), float(inside.mean()), float(other.mean()))
        for name, (inside, other) in pairs.items()
    }
    num_validation = min(limit, len(evaluation.validation))
    origin = evaluation.provenance(num_validation)
    result = OutOfDistribution(num_validation, min(limit, len(others)), scores, origin)
    metrics = evaluation.read()
    by_folder = {**metrics.out_of_distribution, str(outside): result}
    evaluation.write(replace(metrics, out_of_distribution=by_folder))
    return result


def image_scores(
    evaluation: Evaluation, dataset: ImageDataset, limit: int, title: str
) -> dict[str, Tensor]:
    """Scores (N,) of images, higher for images more like those of the run.

    Log-likelihood in nats of the codes of each level and of all levels, and minus the mean squared
    error of the reconstruction.
    """
    pipeline, world = evaluation.pipeline, evaluation.world
    indices = world.shard_nonempty(evenly_spaced(len(dataset), limit))
    batches: list[Tensor] = []
    parts = (to_device(dataset.batch(part), pipeline.device) for part in indices.split(BATCH))
    for (scores,) in arrivals([batch_scores(pipeline, to_float(images))] for images in parts):
        batches.append(scores)
        evaluation.progress(title, sum(rows.shape[1] for rows in batches), len(indices))
    names = [f"level {level}" for level in range(len(pipeline.priors))]
    rows = world.gather(torch.cat(batches, dim=1).T).T
    by_name = dict(zip([*names, "all codes", "reconstruction"], rows, strict=True))
    if isinstance(pipeline.autoencoder, Pixels):
        del by_name["reconstruction"]  # always perfect
    return by_name


@torch.no_grad()
def batch_scores(pipeline: Pipeline, images: Tensor) -> Tensor:
    """Scores of images (B, C, H, W): of each level, of all levels, of the reconstruction.

    Returns:
        (levels + 2, B) on the device of the images.
    """
    # Rounded, so that equal codes have equal scores in any batch.
    levels = unlabelled_log_prob(pipeline, images).round(decimals=4)
    error = exact(images - pipeline.reconstruct_batch(images, "plain")).square()
    return torch.cat([levels, levels.sum(0)[None], -error.flatten(1).mean(1)[None]])


@torch.no_grad()
def unlabelled_log_prob(pipeline: Pipeline, images: Tensor) -> Tensor:
    """Log-probability of the codes of each level given the coarser ones, without a label.

    The class is marginalised: p(codes) of the first level is the mean of p(codes | class), and the
    value of each finer level is what its codes add to the joint log-probability.

    Arguments:
        pipeline: with priors of all levels.
        images: (B, C, H, W) in [0, 1].

    Returns:
        (levels, B) in float64 where the device has it, nats.
    """
    num_classes = pipeline.num_classes
    codes = pipeline.encode_batch(images)
    joint = []
    for label in range(num_classes):
        labels = torch.full((len(images),), label, device=pipeline.device)
        for level, prior in enumerate(pipeline.priors):
            nats = prior.log_prob(codes[level], labels, codes[:level])
            joint.append(exact(nats).flatten(1).sum(dim=1))
    by_class = torch.stack(joint).view(num_classes, len(pipeline.priors), len(images))
    marginal = by_class.cumsum(dim=1).logsumexp(dim=0) - math.log(num_classes)
    return marginal.diff(dim=0, prepend=torch.zeros_like(marginal[:1]))
