"""The two splits of a source: which images they have, in memory or not, and which are skipped."""

from pathlib import Path

import pytest
import torch
from noise_images import class_folder, config, everything, noise_tensor, save

from vqvae2.data import images
from vqvae2.data.config import DataConfig
from vqvae2.data.images import image_files, load_images, open_images, open_validation

# Splits


def test_the_split_of_an_image_depends_on_seed_and_name_alone(tmp_path: Path) -> None:
    class_folder(tmp_path, 40)
    few = open_images(config(tmp_path, validation_fraction=0.3))
    class_folder(tmp_path, 80)
    many = open_images(config(tmp_path, validation_fraction=0.3))
    assert set(few.validation.names) <= set(many.validation.names)
    assert set(few.train.names) <= set(many.train.names)
    assert 24 < len(many.validation) < 72
    other = open_images(config(tmp_path, validation_fraction=0.3, seed=1))
    assert other.validation.names != many.validation.names


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_neither_split_is_ever_empty(tmp_path: Path, fraction: float) -> None:
    class_folder(tmp_path, 1)
    data = open_images(config(tmp_path, validation_fraction=fraction))
    assert (len(data.train), len(data.validation)) == (1, 1)


def test_one_image_is_not_enough(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"At least 2 images are needed.* got 1 \(a.png\)"):
        open_images(config(tmp_path))


def test_labels_that_training_lacks_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a.png")
    class_folder(tmp_path / "val", 2)
    data = open_images(config(tmp_path))
    assert data.class_names == data.validation.class_names == ()
    assert data.validation.labels.tolist() == [0] * 4


def test_validation_images_must_have_the_classes_of_the_training_images(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 2)
    save(tmp_path / "test" / "a.png")
    with pytest.raises(ValueError, match="the validation images have none; sort those"):
        open_images(config(tmp_path))
    class_folder(tmp_path / "test", 2)
    (tmp_path / "test" / "a.png").unlink()
    assert open_images(config(tmp_path)).validation.class_names == ("cat", "dog")


def test_validation_images_are_the_same_opened_alone(tmp_path: Path) -> None:
    class_folder(tmp_path, 6)
    together, alone = open_images(config(tmp_path)).validation, open_validation(config(tmp_path))
    assert alone.names == together.names
    assert alone.fingerprint() == together.fingerprint()
    assert torch.equal(everything(alone), everything(together))


def test_the_built_in_set_is_split_and_labelled() -> None:
    data = open_images(DataConfig(size=8, synthetic_images=600))
    assert len(data.class_names) == 12
    assert len(data.train) + len(data.validation) == 600
    assert 30 < len(data.validation) < 90
    assert set(data.train.labels.tolist()) == set(range(12))


def test_a_folder_is_loaded_as_one_split(tmp_path: Path) -> None:
    class_folder(tmp_path, 2)
    dataset = load_images(tmp_path, 8)
    assert dataset.names == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
    assert everything(dataset).shape == (4, 3, 8, 8)
    assert dataset.class_names == ()
    assert [str(p.relative_to(tmp_path)) for p in image_files(tmp_path)] == dataset.names


# Decoding


def test_images_decoded_on_access_equal_those_in_memory(tmp_path: Path) -> None:
    class_folder(tmp_path)
    for source in (tmp_path, "synthetic"):
        in_memory = open_images(config(source, synthetic_images=40))
        on_access = open_images(config(source, synthetic_images=40, memory_gib=0.0))
        for split in ("train", "validation"):
            first, second = getattr(in_memory, split), getattr(on_access, split)
            assert torch.equal(everything(first), everything(second))
            assert torch.equal(first.labels, second.labels)
            assert first.fingerprint() == second.fingerprint()
            index = torch.tensor([-1, 0, 0])
            assert torch.equal(first.batch(index), second.batch(index))


def test_batches_are_all_images_as_floats() -> None:
    dataset = open_images(DataConfig(size=64, synthetic_images=150)).train
    batches = list(dataset.batches(torch.arange(len(dataset))))
    assert [len(batch) for batch in batches[:-1]] == [128] * (len(batches) - 1)
    assert torch.equal(torch.cat(batches), everything(dataset).float() / 255)


def test_no_indices_give_no_batch(tmp_path: Path) -> None:
    class_folder(tmp_path)
    data = open_images(config(tmp_path))
    assert list(data.train.batches(torch.arange(0))) == []


def test_progress_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "DECODE_BATCH", 4)
    class_folder(tmp_path / "train", 5)
    class_folder(tmp_path / "val", 1)
    reports: list[tuple[str, int, int]] = []
    open_images(config(tmp_path), progress=lambda *report: reports.append(report))
    assert reports == [
        ("reading training images", 4, 10),
        ("reading training images", 8, 10),
        ("reading training images", 10, 10),
        ("reading validation images", 2, 2),
    ]


def test_the_fingerprint_identifies_a_split(tmp_path: Path) -> None:
    class_folder(tmp_path / "a")
    class_folder(tmp_path / "b")
    data = open_images(config(tmp_path / "a"))
    fingerprint = data.train.fingerprint()
    assert len(fingerprint) == 16
    assert open_images(config(tmp_path / "b")).train.fingerprint() == fingerprint, "moved"
    assert data.validation.fingerprint() != fingerprint
    assert open_images(config(tmp_path / "a", size=8)).train.fingerprint() != fingerprint
    save(tmp_path / "a" / data.train.names[0], side=17)
    assert open_images(config(tmp_path / "a")).train.fingerprint() != fingerprint


# Unusable images


def test_unusable_images_are_removed_and_named(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / "val", 1)
    (tmp_path / "train" / "cat" / "001.png").write_bytes(b"no image")
    save(tmp_path / "train" / "dog" / "000.png", side=7)
    train = open_images(config(tmp_path)).train
    assert list(train.reasons) == ["train/cat/001.png", "train/dog/000.png"]
    assert "below half of 16" in train.reasons["train/dog/000.png"]
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert [name[-7:] for name in train.names] == ["000.png", "002.png", "001.png", "002.png"]
    assert torch.equal(everything(train)[1:2], noise_tensor([2]))


def test_an_unusable_image_is_replaced_by_the_next_of_its_class(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / "val", 1)
    (tmp_path / "train" / "cat" / "002.png").write_bytes(b"no image")
    train = open_images(config(tmp_path, memory_gib=0.0)).train
    assert len(train) == 6
    content = everything(train)
    assert torch.equal(content[2], content[0]), "the next cat, not the next image"
    assert torch.equal(train.batch([2])[0], content[0])
    assert list(train.reasons) == ["train/cat/002.png"]


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_a_source_without_usable_images_is_refused(tmp_path: Path, memory_gib: float) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"None of the 2 training .*: cannot identify .*complete"):
        open_images(config(tmp_path, memory_gib=memory_gib))


def test_a_large_source_without_usable_images_is_refused_after_a_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "NUM_PROBED", 3)
    for number in range(40):
        (tmp_path / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"None of the 3 tried of \d+ training images can"):
        open_images(config(tmp_path, memory_gib=0.0))


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_a_source_whose_images_are_all_too_small_is_refused(
    tmp_path: Path, memory_gib: float
) -> None:
    class_folder(tmp_path, 2)
    with pytest.raises(ValueError, match=r"least 32 pixels, the largest has 16; .* 32 or less"):
        open_images(config(tmp_path, size=64, memory_gib=memory_gib))
