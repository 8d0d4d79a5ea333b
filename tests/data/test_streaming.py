"""Shards read where they lie, some blocks at a time."""

import json
import re
import sys
import tarfile
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from unittest import mock

import fsspec
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_images import config, encoded, everything, noise
from PIL import Image
from small_runs import outcome, small_run, train

from vqvae2.data import shards
from vqvae2.data.config import DataConfig
from vqvae2.data.images import ImageDataset, open_images
from vqvae2.data.order import BlockShuffle, batch_indices
from vqvae2.data.shards import Block
from vqvae2.data.streaming import ImageStream
from vqvae2.data.synthetic import render
from vqvae2.distributed import World
from vqvae2.runs.folder import RunFolder
from vqvae2.training.session import Stopped, TrainingSession
from vqvae2.training.stages import train as train_stages

streaming = partial(config, stream=True, window=8)


def parquet(path: Path, seeds, labels=None, rows_a_group: int = 4) -> Path:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    files = [encoded(Image.fromarray(noise(16, seed))) for seed in seeds]
    features = Features({"image": ImageFeature()})
    columns = {"image": [{"bytes": file, "path": None} for file in files]}
    if labels is not None:
        columns["label"] = labels
        features["label"] = ClassLabel(names=["cat", "dog", "emu"])
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=features).to_parquet(path, batch_size=rows_a_group)
    return path


def tar(path: Path, seeds, label=lambda seed: ("cls", str(seed % 3))) -> Path:
    with tarfile.open(path, "w") as archive:
        for seed in seeds:
            files = {"png": encoded(Image.fromarray(noise(16, seed))), "txt": b"a caption"}
            if label is not None:
                ending, text = label(seed)
                files[ending] = text.encode()
            for ending, data in files.items():
                # A long name takes records of its own before the file's.
                entry = tarfile.TarInfo(f"{'long/' * 30}{seed:03d}.{ending}")
                entry.size = len(data)
                archive.addfile(entry, BytesIO(data))
    return path


def expected(seeds) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noise(16, seed)).permute(2, 0, 1) for seed in seeds])


def seeds_of(dataset: ImageDataset, among: range) -> list[int]:
    known = {seed: expected([seed])[0] for seed in among}
    return [
        next(seed for seed, image in known.items() if torch.equal(found, image))
        for found in everything(dataset)
    ]


# The order


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=8),
    window=st.integers(1, 9),
    seed=st.integers(0, 3),
)
def test_an_epoch_takes_every_example_once_and_opens_few_blocks_at_a_time(counts, window, seed):
    order = BlockShuffle(tuple(counts), window)
    examples = order.at(torch.arange(len(order)), seed, epoch=1)
    assert examples.sort().values.tolist() == list(range(sum(counts)))
    owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    blocks = owners[examples].tolist()
    for place in range(len(blocks)):
        # A block is open from its first example to its last.
        still = set(blocks[: place + 1]) & set(blocks[place:])
        assert len(still) <= window


def test_ranks_share_the_batches_of_blocks_too():
    order = BlockShuffle((3, 5, 2, 7), 2)
    joint = torch.cat([batch_indices(order, 4, 0, step) for step in range(9)])
    assert joint[:17].sort().values.tolist() == list(range(17))
    parts = [
        torch.cat([batch_indices(order, 4, 0, step, World(rank, 2)) for rank in range(2)])
        for step in range(9)
    ]
    assert torch.equal(joint, torch.cat(parts))
    assert not torch.equal(joint[:17], torch.cat([joint[17:34]]))


# Shards


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_streamed_shards_hold_what_converted_ones_hold(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 3)
    for name, seeds in [
        ("train-0", range(7)),
        ("train-1", range(7, 12)),
        ("val-0", range(12, 16)),
    ]:
        path = tmp_path / f"{name}.{kind}"
        if kind == "tar":
            tar(path, seeds)
        else:
            parquet(path, seeds, [seed % 3 for seed in seeds])
    data = open_images(streaming(tmp_path))
    assert torch.equal(everything(data.train), expected(range(12)))
    assert torch.equal(everything(data.validation), expected(range(12, 16)))
    assert data.class_names == (("cat", "dog", "emu") if kind == "parquet" else ("0", "1", "2"))
    assert data.train.labels.tolist() == [seed % 3 for seed in range(12)]
    assert data.validation.labels.tolist() == [seed % 3 for seed in range(12, 16)]
    assert data.train.name(8) == f"train-1.{kind}#1"
    assert len(data.train.order.counts) > 3


def test_shards_far_away_are_streamed(tmp_path):
    far = fsspec.filesystem("memory")
    for name, seeds in [("train-0", range(5)), ("test-0", range(5, 9))]:
        far.pipe(f"/bucket/{name}.tar", tar(tmp_path / f"{name}.tar", seeds).read_bytes())
    for source in ("memory://bucket/*.tar", "memory://bucket"):
        data = open_images(config(source))
        assert torch.equal(everything(data.train), expected(range(5)))
        assert torch.equal(everything(data.validation), expected(range(5, 9)))


def test_without_a_validation_shard_whole_blocks_are_validation_by_their_names(tmp_path):
    path = parquet(tmp_path / "a.parquet", range(40), rows_a_group=4)
    data = open_images(streaming(path, validation_fraction=0.2))
    validation = seeds_of(data.validation, range(40))
    assert len(validation) == 8
    assert sorted(validation + seeds_of(data.train, range(40))) == list(range(40))
    assert all(first % 4 == 0 for first in validation[::4])
    other = open_images(streaming(path, validation_fraction=0.2, seed=5))
    assert seeds_of(other.validation, range(40)) != validation


def test_no_more_than_two_windows_are_held(tmp_path, monkeypatch):
    parquet(tmp_path / "train.parquet", range(48), rows_a_group=4)
    parquet(tmp_path / "val.parquet", range(48, 52))
    read = []
    whole = shards.read_rows
    monkeypatch.setattr(shards, "read_rows", lambda block: read.append(block) or whole(block))
    data = open_images(streaming(tmp_path, window=8))
    stream = data.train._listing.stream
    read.clear()
    for step in range(12):
        indices = batch_indices(data.train.order, 4, 0, step)
        data.train.batch(indices)
        data.train.prefetch(batch_indices(data.train.order, 4, 0, step + 2))
        assert len(stream._reads) <= 4
    # In order of an epoch every block is read once.
    assert len(read) <= 12 + 4


def test_a_tar_is_walked_through_once(tmp_path, monkeypatch):
    tar(tmp_path / "train.tar", range(5))
    tar(tmp_path / "val.tar", range(5, 8))
    first = open_images(streaming(tmp_path))
    monkeypatch.setattr(shards, "scan_tar", None)
    again = open_images(streaming(tmp_path))
    assert torch.equal(everything(again.train), everything(first.train))
    assert again.train.labels.tolist() == first.train.labels.tolist()


def test_labels_of_a_tar_may_lie_in_json_or_be_left_out(tmp_path):
    tar(tmp_path / "train.tar", range(4), as_json)
    tar(tmp_path / "val.tar", range(4, 6), as_json)
    data = open_images(streaming(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    plain = tmp_path / "plain"
    plain.mkdir()
    tar(plain / "train.tar", range(4), None)
    tar(plain / "val.tar", range(4, 6), None)
    assert open_images(streaming(plain)).class_names == ()


def as_json(seed: int) -> tuple[str, str]:
    return "json", json.dumps({"label": ["cat", "dog"][seed % 2]})


def damage_a_block(folder: Path, seeds) -> None:
    """Shards of which the images 4 to 7 cannot be read."""
    path = parquet(folder / "train.parquet", seeds, rows_a_group=4)
    parquet(folder / "val.parquet", range(200, 210))
    import pyarrow.parquet as reader

    group = reader.ParquetFile(path).metadata.row_group(1).column(0)
    with path.open("r+b") as file:
        file.seek(group.dictionary_page_offset or group.data_page_offset)
        file.write(b"\xff" * group.total_compressed_size)


def test_a_damaged_block_is_replaced_and_named(tmp_path):
    damage_a_block(tmp_path, range(12))
    data = open_images(streaming(tmp_path))
    assert torch.equal(data.train.batch([5]), expected([8]))
    assert torch.equal(data.train.batch([1, 9]), expected([1, 9]))
    assert data.train.skipped == [f"train.parquet#{n}" for n in (5, 6, 7, 4)]
    assert "block cannot be read" in data.train.reasons["train.parquet#5"]


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_passing_error_is_no_damage(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 4)
    make = {"parquet": parquet, "tar": tar}[kind]
    make(tmp_path / f"train.{kind}", range(8))
    make(tmp_path / f"val.{kind}", range(8, 10))
    data = open_images(streaming(tmp_path))
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
    assert torch.equal(data.train.batch([5]), expected([5]))
    assert data.train.skipped == []


def test_images_that_turn_out_unreadable_are_told_after_the_stage(tmp_path):
    damage_a_block(tmp_path / "shards", range(80))
    run = small_run()
    source = replace(run.data, source=str(tmp_path / "shards"), stream=True, window=16)
    folder = RunFolder(tmp_path / "run")
    data = open_images(source)
    run = replace(run, data=source, num_classes=1)
    session = TrainingSession(folder, run, data, Accelerator(cpu=True))
    told = [event.text for event in train_stages(session)]
    (text,) = [text for text in told if text]
    assert re.match(r"4 of the images could not be read: train.parquet#4, .*#6, \.\.\.;", text)
    assert folder.read_data().skipped == tuple(f"train.parquet#{n}" for n in range(4, 8))
    summary = folder.require_same_images(replace(folder.read_data(), skipped=()))
    assert len(summary.skipped) == 4


def test_blocks_of_uneven_size_are_hardly_ever_read_twice_for_being_asked_for_ahead():
    blocks = [Block("a.tar", 0, 0, 0, count, 0) for _ in range(60) for count in (256, 40)]
    read = []
    with mock.patch(
        "vqvae2.data.streaming.read_block", lambda b: read.append(b) or [b""] * b.num_images
    ):
        stream = ImageStream(blocks, window=2048)
        ahead = max(1, stream.prefetch_limit // 64)
        for step in range(150):
            wanted = batch_indices(stream.order, 64, 0, step + ahead).tolist()
            stream.prefetch(wanted)
            taken = batch_indices(stream.order, 64, 0, step).tolist()
            stream._request(list(dict.fromkeys(map(stream._block_of, taken))))
        stream.close()
    assert 40 <= len(read) <= 1.25 * len({id(block) for block in read})


def test_classes_are_told_by_name_whatever_a_shard_numbers_them(tmp_path):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    for name, order in [("train", ["cat", "dog"]), ("val", ["dog", "cat", "emu"])]:
        features = Features({"image": ImageFeature(), "label": ClassLabel(names=order)})
        cells = [{"bytes": encoded(Image.fromarray(noise(16, n))), "path": None} for n in range(2)]
        table = Dataset.from_dict({"image": cells, "label": [0, 1]}, features=features)
        table.to_parquet(tmp_path / f"{name}.parquet")
    data = open_images(streaming(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1]
    assert data.validation.labels.tolist() == [1, 0]


def test_a_cls_counts_before_a_json_beside_it(tmp_path):
    for name in ("train", "val"):
        tar(tmp_path / f"{name}.tar", range(4), lambda seed: ("cls", str(seed % 2)))
        with tarfile.open(tmp_path / f"{name}.tar") as archive:
            files = [(m.name, archive.extractfile(m).read()) for m in archive]
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            for path, data in files:
                more = [(path, data)]
                if path.endswith(".cls"):
                    more.append((path.replace(".cls", ".json"), b'{"width": 16}'))
                for file, content in more:
                    entry = tarfile.TarInfo(file)
                    entry.size = len(content)
                    archive.addfile(entry, BytesIO(content))
    data = open_images(streaming(tmp_path))
    assert data.class_names == ("0", "1")
    assert data.train.labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("cut", ["at a file", "in a file", "in a header"])
def test_a_cut_tar_is_told(tmp_path, cut):
    path = tar(tmp_path / "train.tar", range(6))
    tar(tmp_path / "val.tar", range(6, 8))
    with tarfile.open(path) as archive:
        member = archive.getmembers()[9]
    data = bytearray(path.read_bytes())
    if cut == "in a header":
        data[member.offset : member.offset + 100] = b"\xff" * 100
    else:
        del data[member.offset + (700 if cut == "in a file" else 0) :]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"train\.tar cannot be read as a shard: .*") as caught:
        open_images(streaming(tmp_path))
    assert "\n" not in str(caught.value)


def test_images_out_of_order_hold_no_more_than_the_rest(tmp_path):
    parquet(tmp_path / "train.parquet", range(48), rows_a_group=4)
    parquet(tmp_path / "val.parquet", range(48, 52))
    data = open_images(streaming(tmp_path, window=8))
    chosen = torch.randperm(48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(data.train.batch(chosen), expected(chosen.tolist()))
    assert len(data.train._listing.stream._reads) <= 4
    with pytest.raises(ValueError, match=r"4 images in one row group, .* the window is 3"):
        open_images(streaming(tmp_path, window=3))


def test_images_of_other_lengths_have_another_fingerprint(tmp_path, monkeypatch):
    found, whole = set(), noise
    for name, side in [("a", 16), ("b", 24)]:
        monkeypatch.setattr(sys.modules[__name__], "noise", lambda _, n, s=side: whole(s, n))
        parquet(tmp_path / name / "train.parquet", range(8))
        monkeypatch.undo()
        parquet(tmp_path / name / "val.parquet", range(8))
        found.add(open_images(streaming(tmp_path / name)).train.fingerprint())
    assert len(found) == 2


def test_a_shard_that_goes_out_of_reach_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "RETRY_SECONDS", 0.0)
    path = parquet(tmp_path / "train.parquet", range(12), rows_a_group=4)
    parquet(tmp_path / "val.parquet", range(12, 14))
    data = open_images(streaming(tmp_path))
    path.rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"train.parquet cannot be reached .* repeat the command"):
        data.train.batch([11])
    (tmp_path / "gone").rename(path)
    assert torch.equal(data.train.batch([11]), expected([11]))


def test_what_cannot_be_streamed_is_told_in_one_line(tmp_path):
    single = parquet(tmp_path / "single" / "a.parquet", range(3))
    broken = tmp_path / "broken.tar"
    broken.write_bytes(b"no archive" * 100)
    mixed = tmp_path / "mixed"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("no shard")
    parquet(mixed / "train.parquet", range(3))
    tar(mixed / "val.tar", range(3))
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
    with pytest.raises(ValueError, match="window must be at least 1"):
        open_images(streaming(single, window=0))


# Training


def shards_of_synthetic(folder: Path) -> Path:
    folder.mkdir()
    for name, first in [("train-0", 0), ("train-1", 40), ("val", 80)]:
        rendered = render(torch.arange(first, first + 40), 16, seed=0)
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for number, image in enumerate(rendered.images):
                image = Image.fromarray(image.permute(1, 2, 0).numpy())
                label = str(number % 12).encode()
                for ending, data in [("png", encoded(image)), ("cls", label)]:
                    entry = tarfile.TarInfo(f"{number:03d}.{ending}")
                    entry.size = len(data)
                    archive.addfile(entry, BytesIO(data))
    return folder


def test_a_streamed_run_stopped_in_the_middle_of_a_shard_ends_bit_equal(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "SAMPLES_PER_BLOCK", 10)
    source = str(shards_of_synthetic(tmp_path / "shards"))
    data = DataConfig(source=source, size=16, stream=True, window=20)
    run = replace(small_run(), data=data)
    whole = outcome(train(tmp_path / "whole", run))
    with pytest.raises(Stopped):
        train(tmp_path / "parts", run, stop_after=5)
    parts = outcome(train(tmp_path / "parts", run))
    assert parts == whole
