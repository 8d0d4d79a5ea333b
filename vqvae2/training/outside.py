"""Does the likelihood of a run tell its own kind of pictures from another kind?

Pictures of other classes have no label that the priors know, so no label is told of either side:
p(codes) is the mean of p(codes | class) over all classes. See `metrics.detection` for what such
scores are known to get wrong.

Legend: `B N` pictures.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqvae2.data.images import Pictures, Progress, load_folder, open_held_out, quiet
from vqvae2.data.order import spread
from vqvae2.metrics.detection import auroc
from vqvae2.pipeline import Pipeline
from vqvae2.pixels import Pixels
from vqvae2.ranks import ALONE, Ranks
from vqvae2.sheets import to_float
from vqvae2.training.evaluate import provenance
from vqvae2.training.run import RunFolder

BATCH = 32


def evaluate_outside(
    folder: RunFolder,
    outside: Path,
    count: int = 2000,
    device: str = "cpu",
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """AUROC of held-out pictures against those of a folder; keeps it in metrics.json.

    Arguments:
        outside: a folder of pictures, cropped and resized to the run's size.
        count: pictures of each, at most; evenly spread.
        ranks: who shares the work; the first writes.
    """
    pipeline, run = Pipeline.load(folder.path).to(device), folder.read()
    held_out = open_held_out(run.data, progress=progress)
    others = load_folder(outside, run.data.size, progress=progress)
    inside = likenesses(pipeline, held_out, count, "held-out pictures", progress, ranks)
    strange = likenesses(pipeline, others, count, "other pictures", progress, ranks)
    number = len(next(iter(inside.values())))
    figures = {
        "num_pictures": [number, len(next(iter(strange.values())))],
        "scores": {
            name: {
                "auroc": auroc(inside[name], strange[name]),
                "held_out": float(inside[name].mean()),
                "outside": float(strange[name].mean()),
            }
            for name in inside
        },
        "provenance": provenance(run, pipeline, held_out, number),
    }
    if ranks.first:
        metrics = folder.read_metrics()
        metrics["detection"] = {**metrics.get("detection", {}), str(outside): figures}
        folder.write_metrics(metrics)
    return figures


def likenesses(
    pipeline: Pipeline,
    pictures: Pictures,
    count: int,
    name: str,
    progress: Progress = quiet,
    ranks: Ranks = ALONE,
) -> dict[str, Tensor]:
    """Scores (N,) of pictures, the higher the more like the run's own.

    Log-likelihood in nats of each level's codes and of all, and minus the mean squared error of
    the reconstruction.
    """
    indices, found = ranks.share(spread(len(pictures), count)), []
    for part in indices.split(BATCH):
        images = to_float(pictures.batch(part)).to(pipeline.device)
        # Equal codes have equal scores, whatever batch rounds them.
        levels = unlabelled_log_prob(pipeline, images).round(decimals=4)
        error = (images - pipeline.reconstruct(images)).cpu().double().square()
        found.append(torch.cat([levels, levels.sum(0)[None], -error.flatten(1).mean(1)[None]]))
        progress(name, sum(rows.shape[1] for rows in found), len(indices))
    names = [f"level {level}" for level in range(len(pipeline.priors))]
    rows = ranks.join(torch.cat(found, dim=1).T).T
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
