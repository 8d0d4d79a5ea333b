"""Does the likelihood of a run tell its own kind of images from another kind?

Images of other classes have no label that the priors know, so no label is told of either side:
p(codes) is the mean of p(codes | class) over all classes. See `metrics.detection` for what such
scores are known to get wrong.

Legend: `B N` images.
"""

import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.autoencoder.pixels import Pixels
from vqvae2.data.images import ImageDataset, Progress, load_folder, open_validation, quiet
from vqvae2.data.order import evenly_spaced
from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.evaluation.evaluation import provenance
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.auroc import auroc
from vqvae2.metrics.results import Detection, OutOfDistribution
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder

BATCH = 32


def evaluate_outside(
    folder: RunFolder,
    outside: Path,
    count: int = 2000,
    device: str = "cpu",
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> OutOfDistribution:
    """AUROC of validation images against those of a folder; keeps it in metrics.json.

    Arguments:
        outside: a folder of images, cropped and resized to the run's size.
        count: images of each, at most; evenly spread.
        ranks: who shares the work; the first writes.
    """
    pipeline, run = Pipeline.open(folder.path).to(device), folder.read()
    validation = open_validation(run.data, progress=progress)
    others = load_folder(outside, run.data.size, progress=progress)
    inside = likenesses(pipeline, validation, count, "validation images", progress, world)
    strange = likenesses(pipeline, others, count, "other images", progress, world)
    number = len(next(iter(inside.values())))
    scores = {
        name: Detection(
            auroc=auroc(inside[name], strange[name]),
            validation=float(inside[name].mean()),
            outside=float(strange[name].mean()),
        )
        for name in inside
    }
    result = OutOfDistribution(
        num_validation=number,
        num_outside=len(next(iter(strange.values()))),
        scores=scores,
        provenance=provenance(run, pipeline, validation, number),
    )
    if world.is_main:
        metrics = folder.read_metrics()
        by_folder = {**metrics.out_of_distribution, str(outside): result}
        folder.write_metrics(replace(metrics, out_of_distribution=by_folder))
    return result


def likenesses(
    pipeline: Pipeline,
    dataset: ImageDataset,
    count: int,
    name: str,
    progress: Progress = quiet,
    world: World = SINGLE_PROCESS,
) -> dict[str, Tensor]:
    """Scores (N,) of images, the higher the more like the run's own.

    Log-likelihood in nats of each level's codes and of all, and minus the mean squared error of
    the reconstruction.
    """
    indices, found = world.shard_nonempty(evenly_spaced(len(dataset), count)), []
    for part in indices.split(BATCH):
        images = to_float(dataset.batch(part)).to(pipeline.device)
        # Equal codes have equal scores, whatever batch rounds them.
        levels = unlabelled_log_prob(pipeline, images).round(decimals=4)
        error = (images - pipeline.reconstruct(images)).cpu().double().square()
        found.append(torch.cat([levels, levels.sum(0)[None], -error.flatten(1).mean(1)[None]]))
        progress(name, sum(rows.shape[1] for rows in found), len(indices))
    names = [f"level {level}" for level in range(len(pipeline.priors))]
    rows = world.gather(torch.cat(found, dim=1).T).T
    scores = dict(zip([*names, "all codes", "reconstruction"], rows, strict=True))
    if isinstance(pipeline.autoencoder, Pixels):
        del scores["reconstruction"]  # there is nothing to lose
    return scores


@torch.no_grad()
def unlabelled_log_prob(pipeline: Pipeline, images: Tensor) -> Tensor:
    """Log-probability in nats of the codes of each level given the coarser, (levels, B) float64.

    The class is summed out: of the first level p(codes) = mean of p(codes | class), and of each
    finer one what its codes add to the joint probability.
    """
    classes = max(1, len(pipeline.config.class_names))
    joint = torch.zeros(classes, len(pipeline.priors), len(images), dtype=torch.float64)
    codes = pipeline.encode(images)
    for label in range(classes):
        labels = torch.full((len(images),), label, device=pipeline.device)
        for level, prior in enumerate(pipeline.priors):
            nats = prior.log_prob(codes[level], labels, codes[:level])
            joint[label, level] = nats.cpu().double().flatten(1).sum(dim=1)
    whole = joint.cumsum(dim=1).logsumexp(dim=0) - math.log(classes)
    return whole.diff(dim=0, prepend=torch.zeros(1, len(images), dtype=torch.float64))
