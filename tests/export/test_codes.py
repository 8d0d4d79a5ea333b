"""Tables of codes for other programs, and images from them."""

import pyarrow.parquet as parquet
import pytest
import torch

from vqvae2.export.codes import export_codes, export_decoded, read_image_codes
from vqvae2.export.progress import png_names
from vqvae2.imaging.convert import to_float, to_uint8
from vqvae2.imaging.png import read_png, read_settings


@pytest.fixture
def table(pipeline, dataset, tmp_path):
    path = tmp_path / "codes.parquet"
    reports = list(export_codes(pipeline, dataset, path, batch_size=4))
    assert [(report.done, report.total) for report in reports] == [(4, 6), (6, 6), (6, 6)]
    assert reports[-1].paths == (path,)
    return path


def test_a_table_holds_names_classes_and_codes(pipeline, dataset, table):
    rows = parquet.read_table(table).to_pylist()
    codes = pipeline.encode(dataset.batch(torch.arange(6)))
    for index, row in enumerate(rows):
        assert row["name"] == dataset.names[index]
        assert row["class"] == row["name"].split("/")[0]
        assert row["label"] == pipeline.config.class_names.index(row["class"])
        for level, maps in enumerate(codes):
            assert row[f"level_{level}"] == maps[index].flatten().tolist()


def test_codes_become_the_images_of_their_reconstruction(pipeline, dataset, table, tmp_path):
    codes, folder = read_image_codes(table), tmp_path / "out"
    reports = list(export_decoded(pipeline, codes, folder, batch_size=4, source="model"))
    assert reports[-1].paths == (tmp_path / "out-grid.png",)
    expected = to_uint8(pipeline.reconstruct(to_float(dataset.batch(torch.arange(6)))))
    for index, name in enumerate(dataset.names):
        assert torch.equal(to_uint8(read_png(folder / name)), expected[index])
    settings = {"run": "model", "decoder": "plain", "source": dataset.names[0]}
    assert read_settings(folder / dataset.names[0]) == settings


def test_codes_of_another_autoencoder_are_refused(pipeline, table, tmp_path):
    weight = pipeline.autoencoder.codebooks[0].vectors
    before = weight.clone()
    weight += 1
    with pytest.raises(ValueError, match="decode them with the model that encoded them"):
        list(export_decoded(pipeline, read_image_codes(table), tmp_path / "out"))
    weight.copy_(before)


def test_a_file_without_codes_is_one_line(table, tmp_path):
    with pytest.raises(ValueError, match=r"There is no file .*missing"):
        read_image_codes(tmp_path / "missing.parquet")
    content = table.read_bytes()
    for damaged in (b"", b"text", content[:200], content[: len(content) // 2]):
        table.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"has no codes of images .*vqvae2 encode") as error:
            read_image_codes(table)
        assert "\n" not in str(error.value)


def test_files_lose_the_suffix_of_their_image_unless_two_would_be_equal():
    names = ["a.jpg", "b.png", "b.jpg", "x/a.jpg", "3"]
    assert png_names(names) == ["a", "b.png", "b.jpg", "x/a", "3"]
