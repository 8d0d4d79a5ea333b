"""Two splits of pictures: what is held out, kept in memory, skipped and told."""

from pathlib import Path

import pytest
import torch
from noise_pictures import class_folder, config, everything, noise, save

from vqvae2.data import images
from vqvae2.data.images import DataConfig, load_folder, open_held_out, open_pictures, picture_files
from vqvae2.sheets import batches


def test_the_split_of_a_picture_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    class_folder(tmp_path, 40)
    few = open_pictures(config(tmp_path, held_out_fraction=0.3))
    class_folder(tmp_path, 80)
    many = open_pictures(config(tmp_path, held_out_fraction=0.3))
    assert set(few.held_out.names) <= set(many.held_out.names)
    assert set(few.train.names) <= set(many.train.names)
    assert 24 < len(many.held_out) < 72
    other = open_pictures(config(tmp_path, held_out_fraction=0.3, seed=1))
    assert other.held_out.names != many.held_out.names


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_split_is_ever_empty(tmp_path: Path, fraction: float) -> None:
    class_folder(tmp_path, 1)
    data = open_pictures(config(tmp_path, held_out_fraction=fraction))
    assert (len(data.train), len(data.held_out)) == (1, 1)


def test_labels_that_training_lacks_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a.png")
    class_folder(tmp_path / "val", 2)
    data = open_pictures(config(tmp_path))
    assert data.class_names == data.held_out.class_names == ()
    assert data.held_out.labels.tolist() == [0] * 4


def test_held_out_pictures_must_have_the_classes_of_the_training_ones(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 2)
    save(tmp_path / "test" / "a.png")
    with pytest.raises(ValueError, match="the held-out ones have none; sort those"):
        open_pictures(config(tmp_path))
    class_folder(tmp_path / "test", 2)
    (tmp_path / "test" / "a.png").unlink()
    assert open_pictures(config(tmp_path)).held_out.class_names == ("cat", "dog")


def test_held_out_pictures_are_the_same_opened_alone(tmp_path: Path) -> None:
    class_folder(tmp_path, 6)
    together, alone = open_pictures(config(tmp_path)).held_out, open_held_out(config(tmp_path))
    assert alone.names == together.names
    assert alone.fingerprint() == together.fingerprint()
    assert torch.equal(alone.batch(range(len(alone))), together.batch(range(len(alone))))


def test_the_built_in_set_is_split_and_labelled() -> None:
    data = open_pictures(DataConfig(size=8, synthetic_pictures=600))
    assert len(data.class_names) == 12
    assert len(data.train) + len(data.held_out) == 600
    assert 30 < len(data.held_out) < 90
    assert set(data.train.labels.tolist()) == set(range(12))


def test_pictures_decoded_on_access_equal_those_in_memory(tmp_path: Path) -> None:
    class_folder(tmp_path)
    for source in (tmp_path, "synthetic"):
        kept = open_pictures(config(source, synthetic_pictures=40))
        read = open_pictures(config(source, synthetic_pictures=40, memory_gib=0.0))
        for first, second in ((kept.train, read.train), (kept.held_out, read.held_out)):
            assert torch.equal(everything(first), everything(second))
            assert torch.equal(first.labels, second.labels)
            assert first.fingerprint() == second.fingerprint()
            index = torch.tensor([-1, 0, 0])
            assert torch.equal(first.batch(index), second.batch(index))


def test_unreadable_pictures_are_left_out_and_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / "val", 1)
    (tmp_path / "train" / "cat" / "001.png").write_bytes(b"no picture")
    save(tmp_path / "train" / "dog" / "000.png", side=7)
    train = open_pictures(config(tmp_path)).train
    assert train.skipped == ["train/cat/001.png", "train/dog/000.png"]
    assert "below half of 16" in train.reasons["train/dog/000.png"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [name[-7:] for name in train.names] == ["000.png", "002.png", "001.png", "002.png"]
    assert torch.equal(everything(train)[1], torch.from_numpy(noise(16, 2)).permute(2, 0, 1))


def test_an_unreadable_picture_is_replaced_by_the_next_of_its_class(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / "val", 1)
    (tmp_path / "train" / "cat" / "002.png").write_bytes(b"no picture")
    train = open_pictures(config(tmp_path, memory_gib=0.0)).train
    assert len(train) == 6
    pictures = everything(train)
    assert torch.equal(pictures[2], pictures[0]), "the next cat, not the next picture"
    assert torch.equal(train.batch([2])[0], pictures[0])
    assert train.skipped == ["train/cat/002.png"]


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DECODED_AT_ONCE", 4)
    class_folder(tmp_path / "train", 5)
    class_folder(tmp_path / "val", 1)
    told: list[tuple[str, int, int]] = []
    open_pictures(config(tmp_path), progress=lambda *step: told.append(step))
    assert told == [
        ("reading training pictures", 4, 10),
        ("reading training pictures", 8, 10),
        ("reading training pictures", 10, 10),
        ("reading held-out pictures", 2, 2),
    ]


def test_the_fingerprint_tells_splits_apart(tmp_path: Path) -> None:
    class_folder(tmp_path / "a")
    class_folder(tmp_path / "b")
    data = open_pictures(config(tmp_path / "a"))
    fingerprint = data.train.fingerprint()
    assert len(fingerprint) == 16
    assert open_pictures(config(tmp_path / "b")).train.fingerprint() == fingerprint, "moved"
    assert data.held_out.fingerprint() != fingerprint
    assert open_pictures(config(tmp_path / "a", size=8)).train.fingerprint() != fingerprint
    save(tmp_path / "a" / data.train.name(0), side=17)
    assert open_pictures(config(tmp_path / "a")).train.fingerprint() != fingerprint


def test_one_folder_is_loaded_whole(tmp_path: Path) -> None:
    class_folder(tmp_path, 2)
    pictures = load_folder(tmp_path, 8)
    assert pictures.names == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
    assert everything(pictures).shape == (4, 3, 8, 8)
    assert pictures.class_names == ()
    assert [str(p.relative_to(tmp_path)) for p in picture_files(tmp_path)] == pictures.names


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_a_source_without_readable_pictures_is_told(tmp_path: Path, memory_gib: float) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"None of the 2 training .*: cannot identify .*complete"):
        open_pictures(config(tmp_path, memory_gib=memory_gib))


def test_a_large_source_without_readable_pictures_is_told_after_some(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "PICTURES_TRIED", 3)
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"None of the 3 tried of \d+ training pictures could"):
        open_pictures(config(tmp_path, memory_gib=0.0))


def test_of_no_pictures_there_is_no_batch(tmp_path):
    class_folder(tmp_path)
    data = open_pictures(config(tmp_path))
    assert list(batches(data.train, torch.arange(0))) == []


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_pictures_that_are_all_too_small_are_told(tmp_path: Path, memory_gib: float) -> None:
    class_folder(tmp_path, 2)
    with pytest.raises(ValueError, match=r"least 32 pixels, the largest has 16; .* 32 or less"):
        open_pictures(config(tmp_path, size=64, memory_gib=memory_gib))


def test_one_picture_is_not_enough(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"At least 2 pictures are needed.* got 1 \(a.png\)"):
        open_pictures(config(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size must be at least 1 pixel, got 0"),
        ({"held_out_fraction": 1.0}, "between 0 and 1, got 1.0"),
        ({"source": ""}, "source is empty"),
        ({"synthetic_pictures": 1}, "at least 2, got 1"),
    ],
)
def test_impossible_configs_are_told(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_pictures(config(**{"source": "synthetic", **change}))
