"""Extraction of codes: complete shards remain, and any process may make them."""

import torch
from builders import small_autoencoder
from small_runs import small_run, train

from vqvae2.data import extraction
from vqvae2.data.extraction import describe_codes, extract_shard, num_shards, shard_path
from vqvae2.data.images import open_images


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
