"""Folders of images: classes, splits, and what is no such folder."""

import os
from pathlib import Path

import pytest
import torch
from noise_images import class_folder, config, noise_tensor, save

from vqvae2.data.images import load_images, open_images


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    data = open_images(config(class_folder(tmp_path), validation_fraction=0.3))
    assert data.class_names == data.train.class_names == ("cat", "dog")
    assert len(data.train) + len(data.validation) == 12
    for dataset in (data.train, data.validation):
        for index, label in enumerate(dataset.labels.tolist()):
            folder, file = dataset.names[index].split("/")
            assert folder == data.class_names[label]
            seed = 100 * label + int(file[:3])
            assert torch.equal(dataset.batch([index]), noise_tensor([seed]))


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.PNG", number)
    (tmp_path / "notes.txt").write_text("no image")
    save(tmp_path / ".hidden.png")
    data = open_images(config(tmp_path))
    assert data.class_names == ()
    assert sorted(data.train.names + data.validation.names) == [f"{n}.PNG" for n in range(5)]
    assert data.train.labels.tolist() == [0] * len(data.train)


def test_one_class_sub_folder_is_one_class(tmp_path: Path) -> None:
    assert open_images(config(class_folder(tmp_path, 3, ("cat",)))).class_names == ("cat",)


@pytest.mark.parametrize("validation", ["val", "validation", "Test"])
def test_split_folders_are_the_splits(tmp_path: Path, validation: str) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / validation, 2, ("dog", "emu"))
    data = open_images(config(tmp_path))
    assert data.class_names == ("cat", "dog", "emu")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.validation.labels.tolist() == [1, 1, 2, 2]
    assert data.validation.names[0] == f"{validation}/dog/000.png"


def test_a_validation_folder_is_used_before_a_test_folder(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / split / "a.png")
    assert open_images(config(tmp_path)).validation.names == ["val/a.png"]


def test_a_train_folder_alone_is_split_like_any_other(tmp_path: Path) -> None:
    class_folder(tmp_path / "train")
    data = open_images(config(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.validation) == 12


def test_train_may_be_a_class(tmp_path: Path) -> None:
    data = open_images(config(class_folder(tmp_path, 3, ("bus", "train"))))
    assert data.class_names == ("bus", "train")


def test_a_class_may_be_called_train_inside_a_split(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 2, ("bus", "train"))
    class_folder(tmp_path / "val", 2, ("bus", "train"))
    assert open_images(config(tmp_path)).train.labels.tolist() == [0, 0, 1, 1]


def test_nothing_is_written_into_the_folder(tmp_path: Path) -> None:
    class_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    open_images(config(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_to_a_parent_folder_is_not_followed(tmp_path: Path) -> None:
    class_folder(tmp_path, 2)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert len(load_images(tmp_path, 8)) == 4


def test_a_folder_without_images_is_refused_with_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found nothing; images end in .*\.jpg .*\.png"):
        open_images(config(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="found 1 other files"):
        open_images(config(tmp_path))


def test_a_folder_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: os.PathLike[str]) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\); check its perm"):
        open_images(config(tmp_path))


def test_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    save(class_folder(tmp_path) / "cover.png")
    with pytest.raises(ValueError, match=r"both images \(cover.png\) and sub-folders .*\(cat\)"):
        open_images(config(tmp_path))
