import pytest
import torch
from builders import make_folder
from PIL import Image

from vqvae2.data.images import load_images
from vqvae2.export.inpaintings import (
    EVERYTHING,
    InpaintingRequest,
    export_inpaintings,
    image_and_preserved_part,
    labels_of_folders,
)
from vqvae2.imaging.convert import to_float, to_uint8
from vqvae2.imaging.png import read_png, read_settings
from vqvae2.sampling.config import SamplingConfig

SAMPLING = (SamplingConfig(), SamplingConfig())
TWO_VERSIONS = InpaintingRequest(num_versions=2, seed=3, sampling=SAMPLING, source="model")


def test_every_version_is_a_file_that_stores_its_settings(pipeline, dataset, tmp_path):
    labels, folder = labels_of_folders(pipeline, dataset), tmp_path / "out"
    reports = list(export_inpaintings(pipeline, dataset, labels, TWO_VERSIONS, folder))
    assert reports[-1].paths == (tmp_path / "out-grid.png",)
    assert len(list(folder.rglob("*.png"))) == 12
    name = dataset.names[4]
    path = folder / f"{name.removesuffix('.png')}-00004.png"
    settings = read_settings(path)
    assert (settings["source"], settings["seed"]) == (name, 4)
    assert (settings["box"], settings["keep_levels"]) == ([0, 0.5, 1, 1], 0)
    assert settings["decoder"] == "plain"
    image = to_float(dataset.batch(torch.tensor([4])))
    expected = pipeline.inpaint(image, labels[4:5], [4], sampling=SAMPLING).images[0]
    assert torch.equal(to_uint8(read_png(path)), to_uint8(expected))


def test_the_batch_size_changes_no_image(pipeline, dataset, tmp_path):
    labels = labels_of_folders(pipeline, dataset)
    for name, size in (("a", 64), ("b", 1)):
        request = InpaintingRequest(num_versions=2, sampling=SAMPLING, batch_size=size)
        list(export_inpaintings(pipeline, dataset, labels, request, tmp_path / name))
    for path in (tmp_path / "a").rglob("*.png"):
        other = tmp_path / "b" / path.relative_to(tmp_path / "a")
        assert Image.open(path).tobytes() == Image.open(other).tobytes()


def test_the_grid_shows_at_most_12_images(pipeline, tmp_path):
    dataset = load_images(make_folder(tmp_path / "images", count=14), 16)
    request = InpaintingRequest(num_versions=1, sampling=SAMPLING, batch_size=5)
    labels = labels_of_folders(pipeline, dataset)
    list(export_inpaintings(pipeline, dataset, labels, request, tmp_path / "out"))
    with Image.open(tmp_path / "out-grid.png") as grid:
        assert 12 * 130 < grid.size[1] < 13 * 130
        assert grid.size[0] == 3 * 130, "the image, its preserved part, one version"


def test_sub_folders_give_the_classes(pipeline, pipeline_without_classes, dataset, tmp_path):
    names = [dataset.names[index] for index in range(6)]
    expected = [int(name.startswith("class1")) for name in names]
    assert labels_of_folders(pipeline, dataset).tolist() == expected
    flat = load_images(make_folder(tmp_path / "flat", count=3, classes=0), 16)
    assert labels_of_folders(pipeline_without_classes, flat).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"class of 000\.png is unknown.*\(class0, class1\)"):
        labels_of_folders(pipeline, flat)


def test_the_preserved_part_is_what_stays_of_the_image(pipeline, dataset):
    image = to_float(dataset.batch(torch.tensor([0])))[0]
    original, preserved = image_and_preserved_part(pipeline, image, TWO_VERSIONS)
    assert torch.equal(original, image)
    assert torch.equal(preserved[:, :8], image[:, :8])
    assert (preserved[:, 8:] == 0.5).all()
    variation = InpaintingRequest(box=EVERYTHING, keep_levels=1, sampling=SAMPLING)
    _, preserved = image_and_preserved_part(pipeline, image, variation)
    coarse = pipeline.decode(pipeline.encode(image[None]), [0])[0]
    torch.testing.assert_close(preserved, coarse)
