"""The sections of the report that consist of images."""

from math import log

import torch
from torch import Tensor

from vqvae2.data.order import evenly_spaced
from vqvae2.imaging.colormaps import code_map, heat
from vqvae2.imaging.convert import to_float
from vqvae2.pipeline import Pipeline
from vqvae2.report.blocks import (
    Block,
    Gallery,
    ImagePairs,
    ImageRows,
    Text,
    embedded_image,
    image_row,
)
from vqvae2.report.formatting import describe_sampling
from vqvae2.report.source import NUM_COLUMNS, ClassSamples, ReportSource

NUM_TOP_SAMPLES, NUM_TOP_PAIRS = 16, 8
NUM_RECONSTRUCTIONS = 16
NUM_LIKELIHOODS = 64  # validation images whose likelihood is computed


def reconstructions(source: ReportSource) -> list[Block]:
    """Validation images of all classes beside their reconstructions."""
    source.require_codes()
    text = "Validation images: left the original, right its reconstruction from the codes."
    pairs = reconstruction_pairs(source, NUM_RECONSTRUCTIONS)
    originals = source.validation.batch(evenly_spaced(len(source.validation), NUM_COLUMNS))
    return [Text(text), pairs, *decoders(source.pipeline, to_float(originals))]


def reconstruction_pairs(source: ReportSource, number: int) -> ImagePairs:
    """Evenly spaced validation images, each beside its reconstruction."""
    source.require_codes()
    indices = evenly_spaced(len(source.validation), number)
    originals = to_float(source.validation.batch(indices))
    results = source.pipeline.reconstruct(originals)
    left, right = image_row("original", originals), image_row("reconstruction", results)
    captions = map(source.class_of, indices.tolist())
    return ImagePairs(list(zip(left.images, right.images, captions, strict=True)))


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
    drawn, pipeline = source.samples, source.pipeline
    if pipeline.config.class_names:
        rows = list(map(image_row, drawn.class_names, drawn.images))
    else:
        rows = [image_row("", row) for row in drawn.images[0].split(NUM_COLUMNS)]
    return [Text(describe_samples(pipeline, drawn)), ImageRows(rows)]


def sample_gallery(source: ReportSource) -> list[Block]:
    """The first samples, at the top of the page."""
    drawn = source.samples
    by_seed = [
        (name, images[seed])
        for seed in range(len(drawn.images[0]))
        for name, images in zip(drawn.class_names, drawn.images, strict=True)
    ][:NUM_TOP_SAMPLES]
    images = [embedded_image(image, f"sample {name}".strip()) for name, image in by_seed]
    text = (
        "Samples: new images that the run has drawn. The first ones are shown, none is selected."
    )
    return [Text(text), Gallery(images, [name for name, _ in by_seed])]


def reconstruction_gallery(source: ReportSource) -> list[Block]:
    """A few reconstructions, at the top of the page while there are no samples."""
    pairs = reconstruction_pairs(source, NUM_TOP_PAIRS)
    return [Text("Left an image, right what the autoencoder decodes from its codes."), pairs]


def describe_samples(pipeline: Pipeline, drawn: ClassSamples) -> str:
    """Which samples are shown, and how they were drawn."""
    num_seeds = len(drawn.images[0])
    seeds = "seed 0" if num_seeds == 1 else f"seeds 0 to {num_seeds - 1}"
    order = f"Samples with the {seeds}"
    if pipeline.config.class_names:
        hidden = len(pipeline.config.class_names) - len(drawn.class_names)
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
        limits.append(f"{limit / log(2):.1f} bits in level {level}")
        rows.append(image_row(f"level {level}", heat(maps[selected] / limit), level))
        mean = heat(maps.mean(0, keepdim=True) / limit)
        means.append(image_row(f"level {level}, mean", mean, level))
    return [
        Text(
            f"How many bits the priors need for {len(indices)} validation images, from the least "
            "to the most. Bright positions are codes that the priors did not expect after the "
            "class, the coarser codes and the preceding positions; black ones they predicted. "
            f"White is {' and '.join(limits)}."
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
        batches.append(pipeline.surprise(images, source.validation.labels[batch]))
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]
