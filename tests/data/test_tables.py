"""Tables of images: Parquet files, WebDataset shards and data sets of the hub, converted once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from noise_images import (
    class_folder,
    config,
    encoded,
    everything,
    noise,
    noise_tensor,
    write_parquet,
    write_tar,
)
from PIL import Image

from vqvae2.data import tables
from vqvae2.data.images import ImageDataset, open_images


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    return folder


def assert_images(dataset: ImageDataset, seeds: list[int]) -> None:
    assert torch.equal(everything(dataset), noise_tensor(seeds))


# Parquet


def test_parquet_round_trip(tmp_path: Path) -> None:
    from datasets import ClassLabel

    feature = ClassLabel(names=["cat", "dog"])
    file = write_parquet(tmp_path / "all.parquet", range(8), [0, 1] * 4, feature)
    for memory_gib in (4.0, 0.0):
        data = open_images(config(file, memory_gib=memory_gib, validation_fraction=0.3))
        assert data.class_names == ("cat", "dog")
        seeds = [int(name) for name in data.train.names]
        assert_images(data.train, seeds)
        assert data.train.labels.tolist() == [seed % 2 for seed in seeds]


def test_a_parquet_folder_is_split_by_names(tmp_path: Path) -> None:
    from datasets import Value

    text, folder = Value("string"), tmp_path / "data"
    write_parquet(folder / "train-00000-of-00002.parquet", range(2), ["emu", "cat"], text)
    write_parquet(folder / "train-00001-of-00002.parquet", range(2, 4), ["emu"] * 2, text)
    write_parquet(folder / "test-00000-of-00001.parquet", range(4, 6), ["yak"] * 2, text)
    for source in (tmp_path, f"{tmp_path}/data/*.parquet"):
        data = open_images(config(source))
        assert data.class_names == ("cat", "emu", "yak")
        assert_images(data.train, [0, 1, 2, 3])
        assert_images(data.validation, [4, 5])
        assert data.train.labels.tolist() == [1, 0, 1, 1]
        assert data.validation.labels.tolist() == [2, 2]


def test_numbered_labels_become_classes_in_order(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", range(4), [10, 2, 10, 7])
    assert open_images(config(file)).class_names == ("2", "7", "10")


def test_labels_of_minus_one_are_no_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", range(3), [0, 1, 0])
    write_parquet(tmp_path / "test.parquet", range(3), [-1] * 3)
    with pytest.raises(ValueError, match="the validation images have none"):
        open_images(config(tmp_path))


def test_all_images_have_a_label_or_none(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", range(3), [0, None, 1])
    with pytest.raises(ValueError, match=r"1 of 3 rows of .* have no 'label'"):
        open_images(config(file))


def test_a_row_without_an_image_is_skipped(tmp_path: Path) -> None:
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    good = {"bytes": encoded(Image.fromarray(noise(16))), "path": None}
    Dataset.from_dict(
        {"image": [good, None, good, good]}, features=Features({"image": ImageFeature()})
    ).to_parquet(tmp_path / "train.parquet")
    data = open_images(config(tmp_path / "train.parquet", validation_fraction=0.01))
    assert len(data.train) + len(data.validation) == 3
    assert list(data.train.reasons) == ["1"]


def test_parquet_without_images_is_refused_with_its_columns(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column of images: expected .* got text"):
        open_images(config(tmp_path))


# WebDataset


def test_shards_round_trip(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", range(4))
    write_tar(tmp_path / "train-1.tar", range(4, 6))
    write_tar(tmp_path / "val-0.tar", range(6, 9))
    data = open_images(config(tmp_path))
    assert_images(data.train, list(range(6)))
    assert_images(data.validation, [6, 7, 8])
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.validation.names[0] == "006"
    single = open_images(config(tmp_path / "val-0.tar"))
    assert len(single.train) + len(single.validation) == 3


def test_a_damaged_shard_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive")
    (tmp_path / "a.parquet").write_bytes(b"no table")
    for name in ("a.tar", "a.parquet"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a data set") as caught:
            open_images(config(tmp_path / name))
        assert "\n" not in str(caught.value)


def test_a_folder_of_images_is_not_converted(tmp_path: Path, cache: Path) -> None:
    open_images(config(class_folder(tmp_path)))
    assert not list(cache.iterdir())


# The hub


def raises(error: Exception) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_an_unreachable_hub_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
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

    write_parquet(tmp_path / "a.parquet", range(4), [0, 1, 1, 0])
    table = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"))
    requests: list[object] = []

    def load_dataset(*arguments: object) -> object:
        requests.append(arguments)
        return datasets.DatasetDict({"train": table, "test": table.select([3, 1])})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(tables, "_require_hub", lambda name: None)
    data = open_images(config("some/images:small"))
    assert requests == [("some/images", "small")]
    assert_images(data.train, [0, 1, 2, 3])
    assert_images(data.validation, [3, 1])
    assert data.validation.labels.tolist() == [0, 1]
