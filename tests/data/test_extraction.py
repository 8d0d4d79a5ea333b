"""Extraction of codes: complete shards remain, and any process may make them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import small_autoencoder
from small_runs import small_run, train

from vqvae2.code_grid import CodeGrid
from vqvae2.data import decoders, extraction
from vqvae2.data.codes import CodesInfo
from vqvae2.data.extraction import (
    ShardWriter,
    describe_codes,
    encoded_batches,
    extract_shard,
    num_shards,
    shard_path,
)
from vqvae2.data.images import ImageDataset, open_images


def test_extraction_keeps_complete_shards_and_makes_missing_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "IMAGES_PER_SHARD", 16)
    folder = train(tmp_path, small_run())
    shards = sorted(folder.codes.glob("train-*.parquet"))
    assert len(shards) == 4
    before = {path: path.read_bytes() for path in shards}
    times = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    shards[2].write_bytes(before[shards[2]][:-40])
    damaged = bytearray(before[shards[3]])
    damaged[60] ^= 255
    shards[3].write_bytes(damaged)
    train(tmp_path, small_run())
    assert {path: path.read_bytes() for path in shards} == before
    assert shards[0].stat().st_mtime_ns == times[shards[0]]


def test_a_shard_is_the_same_whoever_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "IMAGES_PER_SHARD", 8)
    dataset = open_images(small_run().data).train
    model = small_autoencoder((2, 4), dtype=torch.float32)
    info, shards = describe_codes(model, dataset), num_shards(len(dataset))
    orders = {"one": range(shards), "two": [*range(1, shards, 2), *range(0, shards, 2)]}
    files = []
    for name, numbers in orders.items():
        done = 0
        for number in numbers:
            path = shard_path(tmp_path / name, "train", number)
            done += list(extract_shard(model, dataset, info, path, number))[-1]
        assert done == len(dataset)
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert len(files[0]) == -(-len(dataset) // 8)
    assert files[0] == files[1]


@contextmanager
def num_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    yield
    assert torch.get_num_threads() == count, "extraction leaves the number as it was"
    torch.set_num_threads(before)


@pytest.fixture
def two_decoders(monkeypatch):
    monkeypatch.setattr(decoders, "num_decoders", lambda: 2)
    monkeypatch.setattr(decoders, "_pool", None)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_codes_are_those_of_the_model_in_order_whatever_the_number_of_threads(
    threads, two_decoders
):
    dataset = open_images(small_run().data).train
    model = small_autoencoder((2, 4), dtype=torch.float32)
    indices = torch.arange(len(dataset)).flip(0)
    with torch.no_grad():
        expected = model.encode(dataset.batch(indices).float() / 255)
    with num_threads(threads):
        batches = list(encoded_batches(model, dataset, indices))
    assert len(batches) == -(-len(dataset) // extraction.CPU_BATCH)
    for level, codes in enumerate(expected):
        assert torch.equal(torch.cat([batch[level] for batch in batches]), codes)


def test_batches_are_decoded_and_encoded_at_the_same_time(monkeypatch, two_decoders):
    """One after the other, no second thread would come to the barrier."""
    barrier, decode = threading.Barrier(2, timeout=20), ImageDataset.batch

    def meet(dataset: ImageDataset, indices: torch.Tensor) -> torch.Tensor:
        barrier.wait()
        return decode(dataset, indices)

    monkeypatch.setattr(ImageDataset, "batch", meet)
    monkeypatch.setattr(extraction, "CPU_BATCH", 8)
    dataset = open_images(small_run().data).train
    with num_threads(2):
        batches = encoded_batches(small_autoencoder((4,), dtype=torch.float32), dataset,
                                  torch.arange(48))  # fmt: skip
        assert sum(len(codes) for (codes,) in batches) == 48


def test_a_single_thread_encodes_while_the_next_batch_is_decoded(monkeypatch, two_decoders):
    decoded, decode = threading.Semaphore(0), ImageDataset.batch
    model = small_autoencoder((4,), dtype=torch.float32)
    encode = model.encode

    def note(dataset: ImageDataset, indices: torch.Tensor) -> torch.Tensor:
        decoded.release()
        return decode(dataset, indices)

    def wait(images: torch.Tensor) -> list[torch.Tensor]:
        assert decoded.acquire(timeout=20)
        return encode(images)

    dataset = open_images(small_run().data).train
    monkeypatch.setattr(ImageDataset, "batch", note)
    monkeypatch.setattr(extraction, "CPU_BATCH", 8)
    monkeypatch.setattr(model, "encode", wait)
    with num_threads(1):
        batches = encoded_batches(model, dataset, torch.arange(48))
        next(batches)
        # While nothing is requested, the thread decodes two batches more.
        for _ in range(2):
            assert decoded.acquire(timeout=20)


def test_an_error_or_a_stop_within_a_shard_ends_its_threads(monkeypatch, tmp_path, two_decoders):
    dataset = open_images(small_run().data).train
    model = small_autoencoder((4,), dtype=torch.float32)
    info, before = describe_codes(model, dataset), threading.active_count()
    with num_threads(2):
        shard = extract_shard(model, dataset, info, tmp_path / "codes.parquet", 0)
        next(shard)
        shard.close()
        assert threading.active_count() == before

        def fail(dataset: ImageDataset, indices: torch.Tensor) -> torch.Tensor:
            raise ValueError("None of the images can be used.")

        monkeypatch.setattr(ImageDataset, "batch", fail)
        with pytest.raises(ValueError, match="None of the images"):
            list(extract_shard(model, dataset, info, tmp_path / "codes.parquet", 0))
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


def test_a_shard_is_written_while_others_are_encoded(monkeypatch, tmp_path):
    may_write, written = threading.Event(), []

    def write(path: Path, *arguments: object) -> None:
        assert may_write.wait(20)
        written.append(path.name)

    monkeypatch.setattr(extraction, "write_shard", write)
    info = CodesInfo(autoencoder="", dataset="", grids=(CodeGrid(2, 1, 1),), num_images=2)
    levels, labels = [np.zeros((1, 1, 1), np.int64)], np.zeros(1, np.int64)
    with ShardWriter() as writer:
        writer.write(tmp_path / "first", info, levels, labels)
        assert not written
        may_write.set()
        writer.write(tmp_path / "second", info, levels, labels)
        assert written[0] == "first", "one at a time"
    assert written == ["first", "second"]


def test_an_error_of_writing_is_raised(tmp_path):
    (tmp_path / "file").touch()
    info = CodesInfo(autoencoder="", dataset="", grids=(CodeGrid(2, 1, 1),), num_images=2)
    levels, labels = [np.zeros((1, 1, 1), np.int64)], np.zeros(1, np.int64)
    with pytest.raises(FileExistsError), ShardWriter() as writer:
        writer.write(tmp_path / "file" / "codes.parquet", info, levels, labels)
