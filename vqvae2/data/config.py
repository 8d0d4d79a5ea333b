"""Configuration of the images: their source, how they are split and read."""

from dataclasses import dataclass

from vqvae2.configuration import require_minimum


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
    size: int = 64
    validation_fraction: float = 0.1
    synthetic_images: int = 12_000
    seed: int = 0
    memory_gib: float = 4.0
    stream: bool = False
    window: int = 16_384

    def __post_init__(self) -> None:
        """Validates the configuration."""
        if not self.source:
            raise ValueError("source is empty; name a folder, a hub data set or 'synthetic'.")
        if self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, got {self.size}.")
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"validation_fraction must be between 0 and 1, got {self.validation_fraction}; "
                "0.1 takes every tenth image."
            )
        require_minimum("", self, synthetic_images=2)
        if not self.memory_gib >= 0:
            raise ValueError(f"memory_gib must be at least 0, got {self.memory_gib}.")
        if self.window < 1:
            raise ValueError(f"window must be at least 1 image, got {self.window}.")

    @property
    def is_streamed(self) -> bool:
        """Whether shards are read a part at a time."""
        return self.stream or "://" in self.source
