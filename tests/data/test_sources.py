"""Where images come from: folders, Parquet files, shards, the hub."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from noise_images import class_folder, config, encoded, everything, noise, save
from PIL import Image

from vqvae2.data import tables
from vqvae2.data.images import ImageDataset, load_folder, open_images


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


# Folders


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    data = open_images(config(class_folder(tmp_path), validation_fraction=0.3))
    assert data.class_names == data.train.class_names == ("cat", "dog")
    assert len(data.train) + len(data.validation) == 12
    for dataset in (data.train, data.validation):
        for index, label in enumerate(dataset.labels.tolist()):
            folder, file = dataset.name(index).split("/")
            assert folder == data.class_names[label]
            expected = noise(16, 100 * label + int(file[:3]))
            assert torch.equal(
                dataset.batch([index])[0], torch.from_numpy(expected).permute(2, 0, 1)
            )


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
    assert data.validation.name(0) == f"{validation}/dog/000.png"


def test_validation_is_validation_before_test(tmp_path: Path) -> None:
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


def test_nothing_is_written_into_the_folder_or_the_cache(tmp_path: Path) -> None:
    import datasets

    class_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    open_images(config(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).iterdir())


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    class_folder(tmp_path, 2)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert len(load_folder(tmp_path, 8)) == 4


def test_a_folder_without_images_names_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found nothing; images end in .*\.jpg .*\.png"):
        open_images(config(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="found 1 other files"):
        open_images(config(tmp_path))


def deny(path: os.PathLike[str]) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\); check its perm"):
        open_images(config(tmp_path))


def test_images_beside_class_folders_are_told(tmp_path: Path) -> None:
    save(class_folder(tmp_path) / "cover.png")
    with pytest.raises(ValueError, match=r"both images \(cover.png\) and sub-folders .*\(cat\)"):
        open_images(config(tmp_path))


# Parquet and shards


def parquet(path: Path, seeds: range, labels: list[object] | None, feature: object = None) -> Path:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    columns: dict[str, list[object]] = {
        "img": [
            {"bytes": encoded(Image.fromarray(noise(16, seed))), "path": None} for seed in seeds
        ]
    }
    features = {"img": ImageFeature()}
    if labels is not None:
        columns["label"] = labels
        features["label"] = feature or Value("int64")
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns, features=Features(features)).to_parquet(path)
    return path


def shard(path: Path, seeds: range) -> Path:
    with tarfile.open(path, "w") as archive:
        for seed in seeds:
            for suffix, data in (
                ("png", encoded(Image.fromarray(noise(16, seed)))),
                ("cls", str(seed % 3).encode()),
            ):
                entry = tarfile.TarInfo(f"{seed:03d}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return path


def assert_holds(dataset: ImageDataset, seeds: list[int]) -> None:
    expected = torch.stack([torch.from_numpy(noise(16, s)).permute(2, 0, 1) for s in seeds])
    assert torch.equal(everything(dataset), expected)


def test_parquet_round_trip(tmp_path: Path) -> None:
    from datasets import ClassLabel

    feature = ClassLabel(names=["cat", "dog"])
    file = parquet(tmp_path / "all.parquet", range(8), [0, 1] * 4, feature)
    for memory_gib in (4.0, 0.0):
        data = open_images(config(file, memory_gib=memory_gib, validation_fraction=0.3))
        assert data.class_names == ("cat", "dog")
        seeds = [int(name) for name in data.train.names]
        assert_holds(data.train, seeds)
        assert data.train.labels.tolist() == [seed % 2 for seed in seeds]


def test_a_parquet_folder_is_split_by_names(tmp_path: Path) -> None:
    from datasets import Value

    text = Value("string")
    folder = tmp_path / "data"
    parquet(folder / "train-00000-of-00002.parquet", range(2), ["emu", "cat"], text)
    parquet(folder / "train-00001-of-00002.parquet", range(2, 4), ["emu"] * 2, text)
    parquet(folder / "test-00000-of-00001.parquet", range(4, 6), ["yak"] * 2, text)
    for source in (tmp_path, f"{tmp_path}/data/*.parquet"):
        data = open_images(config(source))
        assert data.class_names == ("cat", "emu", "yak")
        assert_holds(data.train, [0, 1, 2, 3])
        assert_holds(data.validation, [4, 5])
        assert data.train.labels.tolist() == [1, 0, 1, 1]
        assert data.validation.labels.tolist() == [2, 2]


def test_numbered_labels_become_classes_in_order(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", range(4), [10, 2, 10, 7])
    data = open_images(config(file))
    assert data.class_names == ("2", "7", "10")


def test_labels_of_minus_one_are_no_labels(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(3), [0, 1, 0])
    parquet(tmp_path / "test.parquet", range(3), [-1] * 3)
    with pytest.raises(ValueError, match="the validation images have none"):
        open_images(config(tmp_path))


def test_labels_may_not_be_missing_here_and_there(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", range(3), [0, None, 1])
    with pytest.raises(ValueError, match=r"1 of 3 rows of .* have no 'label'"):
        open_images(config(file))


def test_a_row_without_a_image_is_skipped(tmp_path: Path) -> None:
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    good = {"bytes": encoded(Image.fromarray(noise(16))), "path": None}
    Dataset.from_dict(
        {"image": [good, None, good, good]}, features=Features({"image": ImageFeature()})
    ).to_parquet(tmp_path / "train.parquet")
    data = open_images(config(tmp_path / "train.parquet", validation_fraction=0.01))
    assert len(data.train) + len(data.validation) == 3
    assert data.train.skipped == ["1"]


def test_parquet_without_images_names_its_columns(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column of images: expected .* got text"):
        open_images(config(tmp_path))


def test_shards_round_trip(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", range(4))
    shard(tmp_path / "train-1.tar", range(4, 6))
    shard(tmp_path / "val-0.tar", range(6, 9))
    data = open_images(config(tmp_path))
    assert_holds(data.train, list(range(6)))
    assert_holds(data.validation, [6, 7, 8])
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.validation.name(0) == "006"
    single = open_images(config(tmp_path / "val-0.tar"))
    assert len(single.train) + len(single.validation) == 3


def test_a_broken_shard_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive")
    (tmp_path / "a.parquet").write_bytes(b"no table")
    for name in ("a.tar", "a.parquet"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a data set") as caught:
            open_images(config(tmp_path / name))
        assert "\n" not in str(caught.value)


# Paths that lead nowhere


def test_a_missing_path_is_told_with_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=r"no folder or file .*imagse; did you mean .*images"):
        open_images(config(tmp_path / "imagse"))
    with pytest.raises(ValueError, match="nowhere is no folder; check the path"):
        open_images(config(tmp_path / "nowhere" / "a"))


def test_a_file_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"Expected a folder of images.* gives \.png files"):
        open_images(config(file))
    with pytest.raises(ValueError, match="is a file; give the folder it lies in"):
        load_folder(file, 8)


def test_a_glob_without_matches_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No file matches .*\*\.tar"):
        open_images(config(f"{tmp_path}/*.tar"))


# The hub


def raises(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_a_hub_out_of_reach_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(
        huggingface_hub.HfApi, "dataset_info", raises(ConnectionError("Name not known"))
    )
    with pytest.raises(
        ValueError, match=r"some/images is .*hub cannot be reached \(Name not known\)"
    ) as caught:
        open_images(config("some/images"))
    assert "\n" not in str(caught.value)


def test_a_hub_data_set_is_opened_by_its_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    parquet(tmp_path / "a.parquet", range(4), [0, 1, 1, 0])
    table = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"))
    asked: list[object] = []

    def load_dataset(*arguments: object) -> object:
        asked.append(arguments)
        return datasets.DatasetDict({"train": table, "test": table.select([3, 1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(tables, "_require_hub", lambda name: None)
    data = open_images(config("some/images:small"))
    assert asked == [("some/images", "small")]
    assert_holds(data.train, [0, 1, 2, 3])
    assert_holds(data.validation, [3, 1])
    assert data.validation.labels.tolist() == [0, 1]
