"""Extraction: all images of both splits become codes, which the priors learn."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.augmentation import AugmentedImages
from vqvae2.data.codes import read_info
from vqvae2.data.extraction import (
    ShardWriter,
    describe_codes,
    extract_shard,
    num_shards,
    remove_other_shards,
    shard_path,
    shard_range,
)
from vqvae2.data.images import ImageDataset
from vqvae2.runs.folder import RunFolder
from vqvae2.training.session import Event, Stopped, TrainingSession
from vqvae2.training.stage import Stage, require_autoencoder
from vqvae2.weights import load_autoencoder


@dataclass(frozen=True)
class ExtractionStage(Stage):
    """Writes the codes of all images to `codes/`; shards that are there and fit are kept."""

    name = "codes"
    group = "codes"
    title = "code extraction"
    training = None
    depends_on = ()

    def done(self, folder: RunFolder) -> bool:
        """Whether all shards of both splits are there; `run` checks whether they fit."""
        return all(has_all_shards(folder.codes, split) for split in ("train", "validation"))

    def run(self, session: TrainingSession) -> Iterator[Event]:
        """Extracts the codes of the (augmented) training images and of the validation images."""
        require_autoencoder(session.folder)
        autoencoder = load_autoencoder(session.folder.autoencoder)
        assert isinstance(autoencoder, VQVAE)
        autoencoder.to(session.device)
        yield from extract(session, autoencoder, session.augmented, "train")
        yield from extract(session, autoencoder, session.splits.validation, "validation")
        session.world.barrier()


def extract(
    session: TrainingSession,
    autoencoder: VQVAE,
    dataset: ImageDataset | AugmentedImages,
    split: str,
) -> Iterator[Event]:
    """Encodes one split; each process takes a shard at a time, and all stop together.

    A shard is written while the next one is encoded.
    """
    info, folder, world = describe_codes(autoencoder, dataset), session.folder.codes, session.world
    start, total, shards = time.monotonic(), len(dataset), num_shards(len(dataset))
    with ShardWriter() as writer:
        for first in range(0, shards, world.size):
            before, stop = shard_range(first, total).start, False
            together = min(world.size, shards - first)  # the others are as far, or nearly
            if (number := first + world.rank) < shards:
                path = shard_path(folder, split, number)
                for encoded in extract_shard(
                    autoencoder, dataset, info, path, number, writer.write
                ):
                    done = min(before + encoded * together, total)
                    rate = done / max(1e-9, time.monotonic() - start)
                    yield Event("codes", done, total, split=split, examples_per_second=rate)
                    stop = session.should_stop()
                    if stop:
                        break
            if world.any(stop):
                raise Stopped
    if world.is_main:
        remove_other_shards(folder, split, total)


def has_all_shards(folder: Path, split: str) -> bool:
    """Whether a split has as many shards as its first one announces."""
    shards = sorted(folder.glob(f"{split}-*.parquet"))
    try:
        return bool(shards) and len(shards) == num_shards(read_info(shards[0]).num_images)
    except ValueError:
        return False
