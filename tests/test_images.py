"""Pictures from any source: one decoder, two splits, clear errors."""

import io
import os
import tarfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqvae2.data import images
from vqvae2.data.images import (
    DataConfig,
    Pictures,
    UnreadablePicture,
    decode_full,
    decode_picture,
    load_folder,
    open_pictures,
    picture_files,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


def noise(side: int = 16, seed: int = 0, channels: int = 3) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (side, side, channels), dtype=np.uint8)
    return values if channels > 1 else values[..., 0]


def save(path: Path, seed: int = 0, side: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(side, seed)).save(path)
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def class_folder(root: Path, count: int = 6, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for label, name in enumerate(classes):
        for number in range(count):
            save(root / name / f"{number:03d}.png", seed=100 * label + number)
    return root


def config(source: Path | str, **changes: object) -> DataConfig:
    return DataConfig(**{"source": str(source), "size": 16, **changes})  # type: ignore[arg-type]


def everything(pictures: Pictures) -> torch.Tensor:
    return pictures.batch(range(len(pictures)))


# The decoder


def test_a_picture_of_the_right_size_is_decoded_exactly(tmp_path: Path) -> None:
    values = noise(16)
    decoded = decode_picture(save(tmp_path / "a.png"), 16)
    assert decoded.dtype == torch.uint8
    assert torch.equal(decoded, torch.from_numpy(values).permute(2, 0, 1))
    assert torch.equal(decode_picture((tmp_path / "a.png").read_bytes(), 16), decoded)


def test_a_wide_picture_loses_its_sides_alone() -> None:
    values = np.concatenate([noise(16, 1), noise(16, 2), noise(16, 3)], axis=1)
    decoded = decode_picture(encoded(Image.fromarray(values)), 16)
    assert torch.equal(decoded, torch.from_numpy(noise(16, 2)).permute(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK", "I", "F", "I;16"])
def test_white_is_white_and_black_is_black_in_every_mode(mode: str) -> None:
    bright = {"I": 65_535, "F": 1.0, "I;16": 65_535}.get(mode)
    for value, grey in ((bright, 255), (0, 0)) if bright else ((None, 255),):
        image = (
            Image.new("RGB", (8, 8), "white").convert(mode)
            if value is None
            else Image.new(mode, (8, 8), value)
        )
        decoded = decode_picture(encoded(image, "TIFF"), 8)
        assert decoded.shape == (3, 8, 8)
        assert (decoded == grey).all(), mode


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(kind: str) -> None:
    ramp = np.tile(np.arange(0, 65_536, 4096, dtype=np.uint16), (16, 1))
    decoded = decode_picture(encoded(Image.fromarray(ramp), kind), 16)
    assert decoded[0, 0].tolist() == np.rint(ramp[0] / 257).astype(int).tolist()


@pytest.mark.parametrize("white", [1.0, 255.0, 65_535.0])
def test_float_grey_is_scaled_by_the_range_it_fits(white: float) -> None:
    ramp = np.tile(np.linspace(0, white, 16, dtype=np.float32), (16, 1))
    decoded = decode_picture(encoded(Image.fromarray(ramp), "TIFF"), 16)
    assert decoded[0, 0].tolist() == np.rint(np.linspace(0, 255, 16)).astype(int).tolist()


def test_transparency_becomes_white() -> None:
    for mode, clear, half in (("RGBA", (255, 0, 0, 0), (0, 0, 0, 128)), ("LA", (0, 0), (0, 128))):
        assert (decode_picture(encoded(Image.new(mode, (8, 8), clear)), 8) == 255).all()
        grey = decode_picture(encoded(Image.new(mode, (8, 8), half)), 8)
        assert (grey.int() - 127).abs().max() <= 1


def test_a_transparent_palette_colour_becomes_white() -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    assert decode_picture(encoded(image), 8)[:, 0, 0].tolist() == [200, 10, 10]
    assert (decode_picture(encoded(image, transparency=1), 8) == 255).all()
    # Some files give every colour of the palette its own opacity, of which Pillow warns.
    assert (decode_picture(encoded(image, transparency=b"\xff\x00"), 8) == 255).all()
    assert (decode_picture(encoded(image, "GIF", transparency=1), 8) == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    upright = Image.fromarray(noise(16)).resize((16, 24))
    turns = ["", "", "FLIP_LEFT_RIGHT", "ROTATE_180", "FLIP_TOP_BOTTOM"]
    turns += ["TRANSPOSE", "ROTATE_90", "TRANSVERSE", "ROTATE_270"]
    turn = turns[orientation]
    stored = upright.transpose(Image.Transpose[turn]) if turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode_full(encoded(stored, exif=exif))
    assert decoded.size == (16, 24)
    assert np.array_equal(np.asarray(decoded), np.asarray(upright))


def test_a_fine_checkerboard_shrinks_to_flat_grey() -> None:
    board = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    for size in (16, 24, 100):
        inner = decode_picture(encoded(Image.fromarray(board)), size)[:, 2:-2, 2:-2]
        assert (inner.int() - 127).abs().max() <= 2, size


def test_a_large_jpeg_shrinks_like_its_average() -> None:
    ramp = np.tile(np.linspace(0, 255, 512).astype(np.uint8), (512, 1))
    decoded = decode_picture(encoded(Image.fromarray(ramp), "JPEG", quality=95), 16)
    expected = torch.from_numpy(ramp).float().reshape(16, 32, 16, 32).mean((1, 3))
    assert (decoded[0] - expected)[1:-1, 1:-1].abs().max() < 3


def test_a_picture_grows_at_most_twofold() -> None:
    assert decode_picture(encoded(Image.new("RGB", (8, 9))), 16).shape == (3, 16, 16)
    with pytest.raises(UnreadablePicture, match="short side of 7 pixels is below half of 16"):
        decode_picture(encoded(Image.new("RGB", (7, 90))), 16)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_picture_is_unreadable(kind: str) -> None:
    data = encoded(Image.fromarray(noise(64)), kind)
    for length in (0, 3, 20, len(data) // 2):
        with pytest.raises(UnreadablePicture, match=r"."):
            decode_picture(data[:length], 16)


def test_a_decompression_bomb_is_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.new("L", (64, 64)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # a warning alone: still readable
    assert decode_full(data).size == (64, 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UnreadablePicture, match="decompression bomb"):
        decode_picture(data, 16)


def test_damaged_exif_does_not_hide_a_readable_picture() -> None:
    data = encoded(Image.fromarray(noise(16)), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12")
    assert decode_picture(data, 16).shape == (3, 16, 16)


def test_a_full_picture_keeps_its_size() -> None:
    full = decode_full(encoded(Image.new("CMYK", (37, 5)), "TIFF"))
    assert (full.mode, full.size) == ("RGB", (37, 5))


def test_decoding_in_threads_leaves_the_warning_filters_alone() -> None:
    before = list(warnings.filters)
    data = encoded(Image.fromarray(noise(16)))
    threads = [
        threading.Thread(target=lambda: [decode_picture(data, 16) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


# Folders


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    data = open_pictures(config(class_folder(tmp_path), held_out_fraction=0.3))
    assert data.class_names == data.train.class_names == ("cat", "dog")
    assert len(data.train) + len(data.held_out) == 12
    for pictures in (data.train, data.held_out):
        for index, label in enumerate(pictures.labels.tolist()):
            folder, file = pictures.name(index).split("/")
            assert folder == data.class_names[label]
            expected = noise(16, 100 * label + int(file[:3]))
            assert torch.equal(
                pictures.batch([index])[0], torch.from_numpy(expected).permute(2, 0, 1)
            )


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"{number}.PNG", number)
    (tmp_path / "notes.txt").write_text("no picture")
    save(tmp_path / ".hidden.png")
    data = open_pictures(config(tmp_path))
    assert data.class_names == ()
    assert sorted(data.train.names + data.held_out.names) == [f"{n}.PNG" for n in range(5)]
    assert data.train.labels.tolist() == [0] * len(data.train)


def test_one_class_sub_folder_is_one_class(tmp_path: Path) -> None:
    assert open_pictures(config(class_folder(tmp_path, 3, ("cat",)))).class_names == ("cat",)


@pytest.mark.parametrize("held_out", ["val", "validation", "Test"])
def test_split_folders_are_the_splits(tmp_path: Path, held_out: str) -> None:
    class_folder(tmp_path / "train", 3)
    class_folder(tmp_path / held_out, 2, ("dog", "emu"))
    data = open_pictures(config(tmp_path))
    assert data.class_names == ("cat", "dog", "emu")
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.held_out.labels.tolist() == [1, 1, 2, 2]
    assert data.held_out.name(0) == f"{held_out}/dog/000.png"


def test_validation_is_held_out_before_test(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path / split / "a.png")
    assert open_pictures(config(tmp_path)).held_out.names == ["val/a.png"]


def test_a_train_folder_alone_is_split_like_any_other(tmp_path: Path) -> None:
    class_folder(tmp_path / "train")
    data = open_pictures(config(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert len(data.train) + len(data.held_out) == 12


def test_train_may_be_a_class(tmp_path: Path) -> None:
    data = open_pictures(config(class_folder(tmp_path, 3, ("bus", "train"))))
    assert data.class_names == ("bus", "train")


def test_a_class_may_be_called_train_inside_a_split(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 2, ("bus", "train"))
    class_folder(tmp_path / "val", 2, ("bus", "train"))
    assert open_pictures(config(tmp_path)).train.labels.tolist() == [0, 0, 1, 1]


def test_labels_that_training_lacks_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "train" / "a.png")
    class_folder(tmp_path / "val", 2)
    data = open_pictures(config(tmp_path))
    assert data.class_names == data.held_out.class_names == ()
    assert data.held_out.labels.tolist() == [0] * 4


def test_held_out_pictures_may_lack_labels(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", 2)
    save(tmp_path / "test" / "a.png")
    data = open_pictures(config(tmp_path))
    assert data.class_names == ("cat", "dog")
    assert data.held_out.class_names == ()


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


def test_nothing_is_written_into_the_folder_or_the_cache(tmp_path: Path) -> None:
    import datasets

    class_folder(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    open_pictures(config(tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(Path(datasets.config.HF_DATASETS_CACHE).iterdir())


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


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    class_folder(tmp_path, 2)
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    assert len(load_folder(tmp_path, 8)) == 4


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


def assert_holds(pictures: Pictures, seeds: list[int]) -> None:
    expected = torch.stack([torch.from_numpy(noise(16, s)).permute(2, 0, 1) for s in seeds])
    assert torch.equal(everything(pictures), expected)


def test_parquet_round_trip(tmp_path: Path) -> None:
    from datasets import ClassLabel

    feature = ClassLabel(names=["cat", "dog"])
    file = parquet(tmp_path / "all.parquet", range(8), [0, 1] * 4, feature)
    for memory_gib in (4.0, 0.0):
        data = open_pictures(config(file, memory_gib=memory_gib, held_out_fraction=0.3))
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
        data = open_pictures(config(source))
        assert data.class_names == ("cat", "emu", "yak")
        assert_holds(data.train, [0, 1, 2, 3])
        assert_holds(data.held_out, [4, 5])
        assert data.train.labels.tolist() == [1, 0, 1, 1]
        assert data.held_out.labels.tolist() == [2, 2]


def test_numbered_labels_become_classes_in_order(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", range(4), [10, 2, 10, 7])
    data = open_pictures(config(file))
    assert data.class_names == ("2", "7", "10")


def test_labels_of_minus_one_are_no_labels(tmp_path: Path) -> None:
    parquet(tmp_path / "train.parquet", range(3), [0, 1, 0])
    parquet(tmp_path / "test.parquet", range(3), [-1] * 3)
    data = open_pictures(config(tmp_path))
    assert data.class_names == ("0", "1")
    assert data.held_out.class_names == ()


def test_labels_may_not_be_missing_here_and_there(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", range(3), [0, None, 1])
    with pytest.raises(ValueError, match=r"1 of 3 rows of .* have no 'label'"):
        open_pictures(config(file))


def test_a_row_without_a_picture_is_skipped(tmp_path: Path) -> None:
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    good = {"bytes": encoded(Image.fromarray(noise(16))), "path": None}
    Dataset.from_dict(
        {"image": [good, None, good, good]}, features=Features({"image": ImageFeature()})
    ).to_parquet(tmp_path / "train.parquet")
    data = open_pictures(config(tmp_path / "train.parquet", held_out_fraction=0.01))
    assert len(data.train) + len(data.held_out) == 3
    assert data.train.skipped == ["1"]


def test_parquet_without_pictures_names_its_columns(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_dict({"text": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column of pictures: expected .* got text"):
        open_pictures(config(tmp_path))


def test_shards_round_trip(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", range(4))
    shard(tmp_path / "train-1.tar", range(4, 6))
    shard(tmp_path / "val-0.tar", range(6, 9))
    data = open_pictures(config(tmp_path))
    assert_holds(data.train, list(range(6)))
    assert_holds(data.held_out, [6, 7, 8])
    assert data.class_names == ("0", "1", "2")
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert data.held_out.name(0) == "006"
    single = open_pictures(config(tmp_path / "val-0.tar"))
    assert len(single.train) + len(single.held_out) == 3


def test_a_broken_shard_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no archive")
    (tmp_path / "a.parquet").write_bytes(b"no table")
    for name in ("a.tar", "a.parquet"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as a data set") as caught:
            open_pictures(config(tmp_path / name))
        assert "\n" not in str(caught.value)


# The built-in set


def test_the_built_in_set_is_split_and_labelled() -> None:
    data = open_pictures(DataConfig(size=8, synthetic_pictures=600))
    assert len(data.class_names) == 12
    assert len(data.train) + len(data.held_out) == 600
    assert 30 < len(data.held_out) < 90
    assert set(data.train.labels.tolist()) == set(range(12))


# Errors


def deny(path: os.PathLike[str]) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_missing_path_is_told_with_a_near_name(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(ValueError, match=r"no folder or file .*picturs; did you mean .*pictures"):
        open_pictures(config(tmp_path / "picturs"))
    with pytest.raises(ValueError, match="nowhere is no folder; check the path"):
        open_pictures(config(tmp_path / "nowhere" / "a"))


def test_a_folder_without_pictures_names_the_suffixes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"found nothing; pictures end in .*\.jpg .*\.png"):
        open_pictures(config(tmp_path))
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(ValueError, match="found 1 other files"):
        open_pictures(config(tmp_path))


def test_a_folder_that_may_not_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(ValueError, match=r"cannot be read \(Permission denied\); check its perm"):
        open_pictures(config(tmp_path))


def test_a_file_is_not_taken_for_a_folder(tmp_path: Path) -> None:
    file = save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"Expected a folder of pictures.* gives \.png files"):
        open_pictures(config(file))
    with pytest.raises(ValueError, match="is a file; give the folder it lies in"):
        load_folder(file, 8)


def test_pictures_beside_class_folders_are_told(tmp_path: Path) -> None:
    save(class_folder(tmp_path) / "cover.png")
    with pytest.raises(ValueError, match=r"both pictures \(cover.png\) and sub-folders .*\(cat\)"):
        open_pictures(config(tmp_path))


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_a_source_without_readable_pictures_is_told(tmp_path: Path, memory_gib: float) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"None of the 2 training .*: cannot identify .*complete"):
        open_pictures(config(tmp_path, memory_gib=memory_gib))


@pytest.mark.parametrize("memory_gib", [4.0, 0.0])
def test_pictures_that_are_all_too_small_are_told(tmp_path: Path, memory_gib: float) -> None:
    class_folder(tmp_path, 2)
    with pytest.raises(ValueError, match=r"least 32 pixels, the largest has 16; .* 32 or less"):
        open_pictures(config(tmp_path, size=64, memory_gib=memory_gib))


def test_one_picture_is_not_enough(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"At least 2 pictures are needed.* got 1 \(a.png\)"):
        open_pictures(config(tmp_path))


def test_a_glob_without_matches_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No file matches .*\*\.tar"):
        open_pictures(config(f"{tmp_path}/*.tar"))


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
        ValueError, match=r"some/pictures is .*hub cannot be reached \(Name not known\)"
    ) as caught:
        open_pictures(config("some/pictures"))
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
    monkeypatch.setattr(images, "_check_hub", lambda name: None)
    data = open_pictures(config("some/pictures:small"))
    assert asked == [("some/pictures", "small")]
    assert_holds(data.train, [0, 1, 2, 3])
    assert_holds(data.held_out, [3, 1])
    assert data.held_out.labels.tolist() == [0, 1]
