"""Streamed splits: which blocks they have, how many are in memory, what is refused, training."""

import re
import tarfile
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from unittest import mock

import pytest
import torch
from accelerate import Accelerator
from noise_images import (
    config,
    damage_block,
    encoded,
    everything,
    noise_tensor,
    write_parquet,
    write_tar,
)
from PIL import Image
from small_runs import outcome, small_run, train

from vqvae2.data import shards
from vqvae2.data.config import DataConfig
from vqvae2.data.images import ImageDataset, open_images
from vqvae2.data.order import batch_indices
from vqvae2.data.shards import Block
from vqvae2.data.streaming import ImageStream
from vqvae2.data.synthetic import render
from vqvae2.runs.folder import RunFolder
from vqvae2.training.session import Stopped, TrainingSession
from vqvae2.training.stages import train_run

streaming = partial(config, stream=True, window=8)
parquet = partial(write_parquet, rows_per_group=4)


def seeds_of(dataset: ImageDataset, among: range) -> list[int]:
    """The seeds of all images of a data set."""
    images = {seed: noise_tensor([seed])[0] for seed in among}
    return [
        next(seed for seed, image in images.items() if torch.equal(content, image))
        for content in everything(dataset)
    ]


def test_without_a_validation_shard_blocks_are_split_by_their_names(tmp_path):
    path = parquet(tmp_path / "a.parquet", range(40))
    data = open_images(streaming(path, validation_fraction=0.2))
    validation = seeds_of(data.validation, range(40))
    assert len(validation) == 8
    assert sorted(validation + seeds_of(data.train, range(40))) == list(range(40))
    assert all(first % 4 == 0 for first in validation[::4])
    other = open_images(streaming(path, validation_fraction=0.2, seed=5))
    assert seeds_of(other.validation, range(40)) != validation


def test_images_of_other_lengths_have_another_fingerprint(tmp_path):
    for name, side in [("a", 16), ("b", 24)]:
        parquet(tmp_path / name / "train.parquet", range(8), side=side)
        parquet(tmp_path / name / "val.parquet", range(8))
    a, b = (open_images(streaming(tmp_path / name)).train.fingerprint() for name in "ab")
    assert a != b


# Memory


def test_at_most_two_windows_are_in_memory(tmp_path, monkeypatch):
    parquet(tmp_path / "train.parquet", range(48))
    parquet(tmp_path / "val.parquet", range(48, 52))
    reads: list[Block] = []
    read_rows = shards.read_rows
    monkeypatch.setattr(shards, "read_rows", lambda b: reads.append(b) or read_rows(b))
    data = open_images(streaming(tmp_path))
    stream = data.train._listing.stream
    reads.clear()
    for step in range(12):
        data.train.batch(batch_indices(data.train.order, 4, 0, step))
        data.train.prefetch(batch_indices(data.train.order, 4, 0, step + 2))
        assert len(stream._reads) <= 4
    # In the order of an epoch every block is read once.
    assert len(reads) <= 12 + 4


def test_any_other_order_needs_no_more_memory(tmp_path):
    parquet(tmp_path / "train.parquet", range(48))
    parquet(tmp_path / "val.parquet", range(48, 52))
    data = open_images(streaming(tmp_path))
    shuffled = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(data.train.batch(shuffled), noise_tensor(shuffled.tolist()))
    assert len(data.train._listing.stream._reads) <= 4


def test_prefetching_hardly_ever_reads_a_block_of_uneven_size_twice():
    blocks = [Block("a.tar", 0, 0, 0, count, 0) for _ in range(60) for count in (256, 40)]
    reads: list[Block] = []

    def read_block(block: Block) -> list[bytes]:
        reads.append(block)
        return [b""] * block.num_images

    with mock.patch("vqvae2.data.streaming.read_block", read_block):
        stream = ImageStream(blocks, window=2048)
        ahead = max(1, stream.prefetch_limit // 64)
        for step in range(150):
            stream.prefetch(batch_indices(stream.order, 64, 0, step + ahead).tolist())
            used = batch_indices(stream.order, 64, 0, step).tolist()
            stream._request(list(dict.fromkeys(map(stream._block_of, used))))
        stream.close()
    assert 40 <= len(reads) <= 1.25 * len({id(block) for block in reads})


# Refusals


def test_sources_that_cannot_be_streamed_are_refused_in_one_line(tmp_path):
    single = parquet(tmp_path / "single" / "a.parquet", range(3))
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no archive" * 100)
    mixed = tmp_path / "mixed"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("no shard")
    large = parquet(mixed / "train.parquet", range(8))
    write_tar(mixed / "val.tar", range(3))
    parquet(tmp_path / "none.parquet", range(8), [0, -1, 1, 2] * 2)
    for source, message in [
        (single, "holds a single block of 3 images"),
        (broken, r"broken\.tar cannot be read as a shard"),
        (mixed, r"one kind at a time; .* gives \.parquet and \.tar"),
        (tmp_path / "mixe", r"no folder or file .*; did you mean .*mixed"),
        (tmp_path / "empty", r"gives neither"),
        (tmp_path / "none.parquet", r"2 of 8 images of .* have no label"),
        ("nowhere://a/b.tar", "cannot be reached"),
    ]:
        with pytest.raises(ValueError, match=message) as caught:
            open_images(streaming(source))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"4 images in one row group, .* the window is 3"):
        open_images(streaming(large, window=3))


# Training


def test_images_that_turn_out_unusable_are_reported_after_the_stage(tmp_path):
    folder = tmp_path / "shards"
    path = parquet(folder / "train.parquet", range(80))
    parquet(folder / "val.parquet", range(200, 210))
    run = small_run()
    source = replace(run.data, source=str(folder), stream=True, window=16)
    data = open_images(source)
    damage_block(path, 1)
    run_folder = RunFolder(tmp_path / "run")
    run = replace(run, data=source, num_classes=1)
    session = TrainingSession(run_folder, run, data, Accelerator(cpu=True))
    (text,) = [event.text for event in train_run(session) if event.text]
    assert re.match(r"4 of the images cannot be used: train.parquet#4, .*#6, \.\.\.;", text)
    names = tuple(f"train.parquet#{n}" for n in range(4, 8))
    assert run_folder.read_data().skipped == names
    again = run_folder.require_same_images(replace(run_folder.read_data(), skipped=()))
    assert again.skipped == names


def synthetic_shards(folder: Path) -> Path:
    folder.mkdir()
    for name, first in [("train-0", 0), ("train-1", 40), ("val", 80)]:
        batch = render(torch.arange(first, first + 40), 16, seed=0)
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number, pixels in enumerate(batch.images):
                image = encoded(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
                for ending, data in [("png", image), ("cls", str(number % 12).encode())]:
                    entry = tarfile.TarInfo(f"{number:03d}.{ending}")
                    entry.size = len(data)
                    archive.addfile(entry, BytesIO(data))
    return folder


def test_a_streamed_run_stopped_in_the_middle_of_a_shard_ends_bit_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 10)
    source = str(synthetic_shards(tmp_path / "shards"))
    data = DataConfig(source=source, size=16, stream=True, window=20)
    run = replace(small_run(), data=data)
    uninterrupted = outcome(train(tmp_path / "uninterrupted", run))
    with pytest.raises(Stopped):
        train(tmp_path / "parts", run, stop_after=5)
    assert outcome(train(tmp_path / "parts", run)) == uninterrupted
