"""Configuration of the images: their source, how they are split and read."""

from dataclasses import dataclass
from typing import Annotated

from vqvae2.configuration import AtLeast1, Interval, require_ranges


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The source of the images, and how they are split and read.

    Arguments:
        source: A folder, Parquet file(s), WebDataset .tar shard(s) (a file, a folder of them or a
            glob), the name of a hub data set ("owner/name" or "owner/name:config"), or
            "synthetic" for the built-in set. Remote shards, "s3://..." or "https://...", are
            streamed.
        size: Side of the square images, pixels.
        validation_fraction: Fraction of the images used for validation, if the source has no
            validation or test split.
        synthetic_images: Number of images of the built-in set, both splits together.
        seed: Seed of the choice of validation images, and of the built-in set.
        memory_gib: Memory for decoded images, GiB. Images are decoded once if they all fit,
            otherwise every time they are used.
        stream: Read shards a part at a time instead of converting all of them first; for data
            sets that are too large for that.
        window: Number of streamed images that are shuffled together. Up to twice as many are in
            memory, undecoded.
    """

    source: str = "synthetic"
    size: AtLeast1 = 64
    validation_fraction: Annotated[float, Interval("(0, 1)", "0.1 takes every tenth image")] = 0.1
    synthetic_images: Annotated[int, Interval("[2, inf)", "both splits need one")] = 12_000
    seed: int = 0
    memory_gib: Annotated[float, Interval("[0, inf]")] = 4.0
    stream: bool = False
    window: AtLeast1 = 16_384

    def __post_init__(self) -> None:
        """Validates the configuration."""
        if not self.source:
            raise ValueError("source is empty; name a folder, a hub data set or 'synthetic'.")
        require_ranges("data.", self)

    @property
    def is_streamed(self) -> bool:
        """Whether shards are read a part at a time."""
        return self.stream or "://" in self.source
