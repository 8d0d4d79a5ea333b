"""Shards listed and read in blocks: labels, damage, failing storage."""

import json
import tarfile
from functools import partial
from io import BytesIO

import fsspec
import pytest
import torch
from noise_images import config, damage_block, everything, noise_tensor, write_parquet, write_tar

from vqvae2.data import shards
from vqvae2.data.images import ImageSplits, open_images

WRITERS = {"parquet": partial(write_parquet, rows_per_group=4), "tar": write_tar}
LONG = "long/" * 30
"""A folder so deep that tar stores the name in records before the file's own."""


def open_streamed(source: object, **changes: object) -> ImageSplits:
    return open_images(config(source, stream=True, window=8, **changes))


@pytest.mark.parametrize("kind", WRITERS)
def test_streamed_images_equal_converted_ones(tmp_path, kind, monkeypatch):
    from datasets import ClassLabel

    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 3)
    feature = ClassLabel(names=["cat", "dog", "emu"])
    for name, seeds in [
        ("train-0", range(7)),
        ("train-1", range(7, 12)),
        ("val-0", range(12, 16)),
    ]:
        path = tmp_path / f"{name}.{kind}"
        if kind == "tar":
            write_tar(path, seeds, prefix=LONG)
        else:
            write_parquet(path, seeds, [seed % 3 for seed in seeds], feature, rows_per_group=4)
    data = open_streamed(tmp_path)
    assert torch.equal(everything(data.train), noise_tensor(range(12)))
    assert torch.equal(everything(data.validation), noise_tensor(range(12, 16)))
    assert data.class_names == (("cat", "dog", "emu") if kind == "parquet" else ("0", "1", "2"))
    assert data.train.labels.tolist() == [seed % 3 for seed in range(12)]
    assert data.validation.labels.tolist() == [seed % 3 for seed in range(12, 16)]
    assert data.train.names[8] == f"train-1.{kind}#1"
    assert len(data.train.order.counts) > 3


def test_remote_shards_are_streamed(tmp_path):
    remote = fsspec.filesystem("memory")
    for name, seeds in [("train-0", range(5)), ("test-0", range(5, 9))]:
        file = write_tar(tmp_path / f"{name}.tar", seeds)
        remote.pipe(f"/bucket/{name}.tar", file.read_bytes())
    for source in ("memory://bucket/*.tar", "memory://bucket"):
        data = open_images(config(source))
        assert torch.equal(everything(data.train), noise_tensor(range(5)))
        assert torch.equal(everything(data.validation), noise_tensor(range(5, 9)))


def test_a_tar_is_scanned_once(tmp_path, monkeypatch):
    write_tar(tmp_path / "train.tar", range(5))
    write_tar(tmp_path / "val.tar", range(5, 8))
    first = open_streamed(tmp_path)
    monkeypatch.setattr(shards, "scan_tar", None)
    again = open_streamed(tmp_path)
    assert torch.equal(everything(again.train), everything(first.train))
    assert again.train.labels.tolist() == first.train.labels.tolist()


# Labels


def test_labels_of_a_tar_may_be_json_or_missing(tmp_path):
    def as_json(seed: int) -> dict[str, bytes]:
        return {"json": json.dumps({"label": ["cat", "dog"][seed % 2]}).encode()}

    for name, extra in [("labelled", as_json), ("plain", lambda seed: {})]:
        write_tar(tmp_path / name / "train.tar", range(4), extra)
        write_tar(tmp_path / name / "val.tar", range(4, 6), extra)
    data = open_streamed(tmp_path / "labelled")
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert open_streamed(tmp_path / "plain").class_names == ()


def test_a_cls_file_is_used_before_a_json_file(tmp_path):
    def both(seed: int) -> dict[str, bytes]:
        return {"cls": str(seed % 2).encode(), "json": b'{"width": 16}'}

    write_tar(tmp_path / "train.tar", range(4), both)
    write_tar(tmp_path / "val.tar", range(4), both)
    data = open_streamed(tmp_path)
    assert data.class_names == ("0", "1")
    assert data.train.labels.tolist() == [0, 1, 0, 1]


def test_classes_are_matched_by_name_however_a_shard_numbers_them(tmp_path):
    from datasets import ClassLabel

    for name, classes in [("train", ["cat", "dog"]), ("val", ["dog", "cat", "emu"])]:
        write_parquet(tmp_path / f"{name}.parquet", range(2), [0, 1], ClassLabel(names=classes))
    data = open_streamed(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1]
    assert data.validation.labels.tolist() == [1, 0]


# Damage


def test_a_damaged_block_is_replaced_and_named(tmp_path):
    damage_block(write_parquet(tmp_path / "train.parquet", range(12), rows_per_group=4), 1)
    write_parquet(tmp_path / "val.parquet", range(200, 204))
    data = open_streamed(tmp_path)
    assert torch.equal(data.train.batch([5]), noise_tensor([8]))
    assert torch.equal(data.train.batch([1, 9]), noise_tensor([1, 9]))
    assert list(data.train.reasons) == [f"train.parquet#{n}" for n in (5, 6, 7, 4)]
    assert "block cannot be read" in data.train.reasons["train.parquet#5"]


@pytest.mark.parametrize("cut", ["at a file", "in a file", "in a header"])
def test_a_truncated_tar_is_refused(tmp_path, cut):
    path = write_tar(tmp_path / "train.tar", range(6), prefix=LONG)
    write_tar(tmp_path / "val.tar", range(6, 8))
    with tarfile.open(path) as archive:
        member = archive.getmembers()[9]
    data = bytearray(path.read_bytes())
    if cut == "in a header":
        data[member.offset : member.offset + 100] = b"\xff" * 100
    else:
        del data[member.offset + (700 if cut == "in a file" else 0) :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.tar cannot be read as a shard: .*") as caught:
        open_streamed(tmp_path)
    assert "\n" not in str(caught.value)


# Failing storage


@pytest.mark.parametrize("kind", WRITERS)
def test_a_temporary_error_is_not_damage(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 4)
    WRITERS[kind](tmp_path / f"train.{kind}", range(8))
    WRITERS[kind](tmp_path / f"val.{kind}", range(8, 10))
    data = open_streamed(tmp_path)
    system = type(shards.file_system(str(tmp_path))[0])

    class Failing(BytesIO):
        def read(self, *_):
            raise OSError(24, "Too many open files")

    def fail(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(system, "open", lambda *_, **__: Failing(b"x" * 5000))
    monkeypatch.setattr(system, "cat_file", fail)
    with pytest.raises(ValueError, match=r"train\.\w+ cannot be reached .*Too many open files"):
        data.train.batch([5])
    monkeypatch.undo()
    assert torch.equal(data.train.batch([5]), noise_tensor([5]))
    assert list(data.train.reasons) == []


def test_an_unreachable_shard_is_reported_in_one_line_and_read_when_it_is_back(tmp_path):
    path = write_parquet(tmp_path / "train.parquet", range(12), rows_per_group=4)
    write_parquet(tmp_path / "val.parquet", range(12, 14))
    data = open_streamed(tmp_path)
    path.rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"train.parquet cannot be reached .* repeat the command"):
        data.train.batch([11])
    (tmp_path / "gone").rename(path)
    assert torch.equal(data.train.batch([11]), noise_tensor([11]))


def test_a_remote_block_is_requested_several_times(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 2)
    remote = fsspec.filesystem("memory")
    for name in ("train", "val"):
        file = write_tar(tmp_path / f"{name}.tar", range(4))
        remote.pipe(f"/retried/{name}.tar", file.read_bytes())
    data = open_images(config("memory://retried"))
    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.0)
    read, failures = shards.read_samples, [OSError("busy")] * (shards.NUM_TRIES - 1)

    def unreliable(block: shards.Block) -> list[shards.Encoded]:
        if failures:
            raise failures.pop()
        return read(block)

    monkeypatch.setattr(shards, "read_samples", unreliable)
    assert torch.equal(data.train.batch([2]), noise_tensor([2]))
    assert failures == []
