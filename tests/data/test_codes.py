"""Code data sets: in memory and shard by shard, damaged, incomplete, of any number of codes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import outcome, small_run, train

from vqvae2.code_grid import CodeGrid
from vqvae2.data import codes as codes_module
from vqvae2.data import extraction
from vqvae2.data.codes import (
    CodesInfo,
    CodesInMemory,
    ShardedCodes,
    open_codes,
    read_codes,
    read_info,
    write_shard,
)
from vqvae2.data.extraction import shard_path
from vqvae2.data.images import open_images
from vqvae2.pipeline import Pipeline
from vqvae2.training.fit import Stopped
from vqvae2.weights import code_fingerprint


def code_info(*num_codes: int, num_images: int = 2) -> CodesInfo:
    grids = tuple(CodeGrid(count, 1, 2) for count in num_codes)
    return CodesInfo(autoencoder="a", dataset="d", grids=grids, num_images=num_images)


def write_codes(folder: Path, info: CodesInfo, *levels: list[list[int]]) -> Path:
    """A shard of code maps of 1x2 codes."""
    maps = [np.array(level, dtype=np.int64).reshape(-1, 1, 2) for level in levels]
    path = shard_path(folder, "train", 0)
    write_shard(path, info, maps, np.arange(len(maps[0])))
    return path


def test_more_than_65536_codes_survive_a_shard(tmp_path):
    small, large = [[0, 511], [65_535, 1]], [[65_536, 69_999], [0, 65_535]]
    write_codes(tmp_path, code_info(65_536, 70_000), small, large)
    codes = read_codes(tmp_path, "train", "a")
    assert [level.dtype for level in codes.levels] == [np.uint16, np.uint32]
    batch, labels = codes.batch(torch.tensor([1, 0]))
    assert [level.reshape(2, 2).tolist() for level in batch] == [small[::-1], large[::-1]]
    assert labels.tolist() == [1, 0]


def test_codes_of_a_level_are_below_its_own_number_of_codes(tmp_path):
    write_codes(tmp_path, code_info(8, 4), [[7, 0], [0, 0]], [[0, 4], [0, 0]])
    assert read_codes(tmp_path, "train", "a", num_levels=1).levels[0].max() == 7
    with pytest.raises(ValueError, match=r"damaged \(a code of level_1 is not below 4\)"):
        read_codes(tmp_path, "train", "a")


def test_codes_in_32_bits_take_twice_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(codes_module, "HELD_BYTES", 2 * 2 * 2)
    write_codes(tmp_path / "16", code_info(65_536), [[0, 1], [2, 3]])
    write_codes(tmp_path / "32", code_info(65_537), [[0, 1], [2, 3]])
    assert isinstance(open_codes(tmp_path / "16", "train", "a"), CodesInMemory)
    assert isinstance(open_codes(tmp_path / "32", "train", "a"), ShardedCodes)


def test_shards_of_an_earlier_version_are_refused_with_the_remedy(tmp_path):
    import pyarrow.parquet as parquet

    path = write_codes(tmp_path, code_info(8), [[0, 1], [2, 3]])
    table = parquet.read_table(path)
    header = json.loads(table.schema.metadata[b"vqvae2"])
    older = {"vqvae2": json.dumps({**header, "version": 1})}
    parquet.write_table(table.replace_schema_metadata(older), path)
    with pytest.raises(ValueError, match=r"version 2, got .* version 1; remove .* repeat `vqvae2"):
        read_info(path)


def test_incomplete_codes_are_refused(tmp_path):
    write_codes(tmp_path, code_info(8, num_images=3), [[0, 1], [2, 3]])
    with pytest.raises(ValueError, match=r"incomplete: 2 of 3 images of split 'train'"):
        read_codes(tmp_path, "train", "a")


def test_codes_of_another_autoencoder_are_refused(tmp_path):
    folder = train(tmp_path, small_run())
    known = code_fingerprint(Pipeline.open(tmp_path).autoencoder)
    codes = read_codes(folder.codes, "train", known)
    assert len(codes) == len(open_images(small_run().data).train)
    assert codes.levels[0].dtype == np.uint16
    with pytest.raises(ValueError, match=r"made by autoencoder .* this one is 00"):
        read_codes(folder.codes, "train", "00")


def test_sharded_codes_equal_those_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "IMAGES_PER_SHARD", 8)
    folder = train(tmp_path / "run", small_run())
    known = code_fingerprint(Pipeline.open(folder.path).autoencoder)
    in_memory = open_codes(folder.codes, "train", known, 2)
    # Two shards of 8 images with 4 + 16 codes are shuffled together, and four are in memory.
    monkeypatch.setattr(codes_module, "HELD_BYTES", 4 * 8 * 2 * 20)
    sharded = open_codes(folder.codes, "train", known, 2)
    assert (type(in_memory), type(sharded)) == (CodesInMemory, ShardedCodes)
    assert len(sharded) == len(in_memory) > 5 * 8
    indices = torch.tensor([41, 0, 9, 9, 30])
    (coarse, fine), labels = sharded.batch(indices)
    (first, second), truth = in_memory.batch(indices)
    assert all(torch.equal(a, b) for a, b in [(coarse, first), (fine, second), (labels, truth)])
    epoch = sharded.order.at(torch.arange(len(sharded)), seed=0, epoch=0)
    for part in epoch.split(4):
        sharded.batch(part)
        assert sharded._read.cache_info().currsize <= 4
    # In that order no shard is read twice.
    assert sharded._read.cache_info().misses <= 6 + 5
    with pytest.raises(Stopped):
        train(tmp_path / "parts", small_run(), stop_after=17)
    parts = train(tmp_path / "parts", small_run())
    assert outcome(parts) == outcome(train(tmp_path / "uninterrupted", small_run()))


def test_codes_are_readable_by_the_datasets_library(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = train(tmp_path / "run", small_run())
    files = [str(path) for path in sorted(folder.codes.glob("train-*.parquet"))]
    rows = datasets.load_dataset("parquet", data_files=files, split="train")
    known = code_fingerprint(Pipeline.open(tmp_path / "run").autoencoder)
    codes = read_codes(folder.codes, "train", known)
    assert rows[3]["level_0"] == codes.levels[0][3].reshape(-1).tolist()
    assert rows["label"][:] == codes.labels.tolist()
