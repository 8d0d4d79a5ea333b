"""What a source of images holds, from its listing and the headers of some images alone."""

from dataclasses import dataclass, replace
from statistics import median

from vqvae2.data.config import DataConfig
from vqvae2.data.decode import UnusableImage
from vqvae2.data.images import list_splits
from vqvae2.data.order import evenly_spaced

NUM_PROBED = 64
"""Images whose headers are read."""

UNREACHED_SIZE = 1 << 30
"""An image far below the wanted size is refused by its header, which names its short side."""

BUILT_IN_SIDE = 64
"""Pixels; the built-in images are drawn, at any size."""


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What decides which models suit the images of a source.

    Arguments:
        num_images: Training images, those that cannot be used among them.
        num_classes: 1 without labels.
        short_side: The median short side, pixels; 0 where none of the probed images can be read.
    """

    num_images: int
    num_classes: int
    short_side: int


def image_facts(config: DataConfig) -> ImageFacts:
    """Lists a source and reads the headers of some of its images.

    Raises:
        ValueError: as of `open_images`, for a source without images.
    """
    is_drawn = config.source == "synthetic"
    train, _ = list_splits(config if is_drawn else replace(config, size=UNREACHED_SIZE))
    sides = [BUILT_IN_SIDE]
    if not is_drawn:
        probes = train.decode(evenly_spaced(len(train.names), NUM_PROBED).tolist())
        errors = [probe for probe in probes if isinstance(probe, UnusableImage)]
        sides = [error.short_side for error in errors if error.short_side is not None] or [0]
    if train.stream is not None:
        train.stream.close()
    return ImageFacts(
        num_images=len(train.names),
        num_classes=max(1, len(train.class_names)),
        short_side=round(median(sides)),
    )
