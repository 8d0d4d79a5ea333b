"""The sections of the report that consist of images."""

from math import log

import torch
from torch import Tensor

from vqvae2.data.order import evenly_spaced
from vqvae2.imaging.colormaps import code_map, heat
from vqvae2.imaging.convert import to_float
from vqvae2.pipeline import Pipeline
from vqvae2.report.blocks import Block, ImagePairs, ImageRows, Text, image_row
from vqvae2.report.formatting import describe_sampling
from vqvae2.report.source import ReportSource

NUM_RECONSTRUCTIONS = 16
NUM_COLUMNS = 8  # images per row
MAX_CLASSES = 20  # rows of samples
NUM_SAMPLES_WITHOUT_CLASSES = 32
MAX_SAMPLED_CODES = 20_000  # large models show fewer samples
NUM_LIKELIHOODS = 64  # validation images whose likelihood is computed


def reconstructions(source: ReportSource) -> list[Block]:
    """Validation images of all classes beside their reconstructions."""
    source.require_codes()
    indices = evenly_spaced(len(source.validation), NUM_RECONSTRUCTIONS)
    originals = to_float(source.validation.batch(indices))
    results = source.pipeline.reconstruct(originals)
    left, right = image_row("original", originals), image_row("reconstruction", results)
    captions = map(source.class_of, indices.tolist())
    text = "Validation images: left the original, right its reconstruction from the codes."
    pairs = ImagePairs(list(zip(left.images, right.images, captions, strict=True)))
    return [Text(text), pairs, *decoders(source.pipeline, originals[:NUM_COLUMNS])]


def decoders(pipeline: Pipeline, originals: Tensor) -> list[Block]:
    """The same codes by both decoders; [] for a model without a sharp one."""
    if pipeline.sharp_decoder is None:
        return []
    codes = pipeline.encode(originals)
    rows = [
        image_row("original", originals),
        image_row("plain decoder", pipeline.decode(codes, decoder="plain")),
        image_row("sharp decoder", pipeline.decode(codes, decoder="sharp")),
    ]
    text = (
        "The same codes by both decoders. The plain one minimises the squared error and shows the "
        "mean of what the codes allow; the sharp one shows one of the possible images, whose "
        "details are invented."
    )
    return [Text(text), ImageRows(rows)]


def levels(source: ReportSource) -> list[Block]:
    """Validation images decoded from each level alone, and their code maps."""
    source.require_codes()
    pipeline = source.pipeline
    images = to_float(source.validation.batch(evenly_spaced(len(source.validation), NUM_COLUMNS)))
    codes = pipeline.encode(images)
    all_levels = pipeline.decode(codes, decoder="plain")
    rows = [image_row("image", images), image_row("all levels", all_levels)]
    text = "Below the images are their code maps: every code has a fixed colour."
    if len(codes) > 1:
        rows += [
            image_row(f"level {level} alone", pipeline.decode(codes, [level]), level)
            for level in range(len(codes))
        ]
        text = (
            "In the rows of a single level, the decoder gets the codes of that level alone. A row "
            "without content means that its level is not used. Below are the code maps of the "
            "same images, coarsest level first: every code has a fixed colour."
        )
    maps = [
        image_row(f"codes of level {level}, {grid}", code_map(codes[level], grid.num_codes), level)
        for level, grid in enumerate(source.grids)
    ]
    return [Text(text), ImageRows(rows), ImageRows(maps)]


def samples(source: ReportSource) -> list[Block]:
    """Samples of each class with the seeds 0, 1, ..."""
    pipeline = source.complete_pipeline
    names = pipeline.config.class_names
    classes = evenly_spaced(len(names), MAX_CLASSES).tolist() or [0]
    seeds = list(range(num_seeds(pipeline, len(classes))))
    labels = [label for label in classes for _ in seeds]
    images = pipeline.sample(labels, seeds * len(classes)).images.split(len(seeds))
    if names:
        rows = [image_row(names[label], row) for label, row in zip(classes, images, strict=True)]
    else:
        rows = [image_row("", row) for row in images[0].split(NUM_COLUMNS)]
    return [Text(describe_samples(pipeline, len(classes), len(seeds))), ImageRows(rows)]


def num_seeds(pipeline: Pipeline, num_classes: int) -> int:
    """Number of samples of each class, so that not too many codes are drawn."""
    num_requested = NUM_COLUMNS if pipeline.config.class_names else NUM_SAMPLES_WITHOUT_CLASSES
    codes_per_image = sum(prior.domain.num_values for prior in pipeline.priors)
    return max(1, min(num_requested, MAX_SAMPLED_CODES // (codes_per_image * num_classes)))


def describe_samples(pipeline: Pipeline, num_classes: int, num_seeds: int) -> str:
    """Which samples are shown, and how they were drawn."""
    seeds = "seed 0" if num_seeds == 1 else f"seeds 0 to {num_seeds - 1}"
    order = f"Samples with the {seeds}"
    if pipeline.config.class_names:
        hidden = len(pipeline.config.class_names) - num_classes
        order = f"One row per class, one column per seed: {seeds}"
        order += f" ({hidden} more classes are not shown)" if hidden else ""
    settings = (
        f"Level {level}: {describe_sampling(config)}"
        for level, config in enumerate(pipeline.config.sampling)
    )
    return f"{order}. Nothing was selected. {'; '.join(settings)}."


def likelihoods(source: ReportSource) -> list[Block]:
    """Maps of the nats of validation codes: of some images, and their mean."""
    indices = evenly_spaced(len(source.validation), NUM_LIKELIHOODS)
    nats = nats_per_position(source, indices)
    total = torch.stack([maps.flatten(1).sum(1) for maps in nats]).sum(0)
    num_shown = min(NUM_COLUMNS, len(indices))
    selected = total.argsort()[torch.linspace(0, len(indices) - 1, num_shown).long()]
    rows = [image_row("image", to_float(source.validation.batch(indices[selected])))]
    means, limits = [], []
    for level, maps in enumerate(nats):
        limit = float(maps.max())
        limits.append(f"{limit:.1f} nats in level {level}")
        rows.append(image_row(f"level {level}", heat(maps[selected] / limit), level))
        mean = heat(maps.mean(0, keepdim=True) / limit)
        means.append(image_row(f"level {level}, mean", mean, level))
    return [
        Text(
            f"From the most to the least probable of {len(indices)} validation images. Bright "
            "positions have codes that are improbable given the class, the coarser codes and the "
            f"preceding positions. White is {' and '.join(limits)}."
        ),
        ImageRows(rows, [f"{value:,.0f} bits" for value in (total[selected] / log(2)).tolist()]),
        Text(f"The mean over the {len(indices)} images."),
        ImageRows(means),
    ]


def nats_per_position(source: ReportSource, indices: Tensor) -> list[Tensor]:
    """Nats of the codes of validation images, (B, H, W) float64 per level.

    For a prior on pixels the nats of the channels of a pixel are summed.
    """
    pipeline, batches = source.complete_pipeline, []
    for batch in indices.split(NUM_COLUMNS):
        images = to_float(source.validation.batch(batch))
        log_probs = pipeline.log_prob_batch(images, source.validation.labels[batch])
        batches.append(
            [-(maps.sum(-1) if maps.ndim == 4 else maps).double().cpu() for maps in log_probs]
        )
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]
