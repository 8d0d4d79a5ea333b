import pytest
import torch
from PIL import Image

from vqvae2.export.reconstructions import export_reconstructions
from vqvae2.imaging.convert import to_float, to_uint8
from vqvae2.imaging.png import read_png, read_settings


def test_every_image_is_reconstructed_into_a_file_of_its_name(pipeline, dataset, tmp_path):
    folder = tmp_path / "out"
    reports = list(export_reconstructions(pipeline, dataset, folder, batch_size=4, source="model"))
    assert [(report.done, report.total) for report in reports] == [(4, 6), (6, 6)]
    images = to_float(dataset.batch(torch.arange(6)))
    reconstructions = pipeline.reconstruct(images)
    for index, image in enumerate(reconstructions):
        path = folder / dataset.names[index]
        assert torch.equal(to_uint8(read_png(path)), to_uint8(image))
        settings = {"run": "model", "source": dataset.names[index], "decoder": "plain"}
        assert read_settings(path) == settings
    error = float((images - reconstructions).double().square().mean())
    assert reports[-1].mse == pytest.approx(error)


def test_a_grid_compares_images_level_by_level(pipeline, dataset, tmp_path):
    first, *_ = export_reconstructions(pipeline, dataset, tmp_path / "out")
    assert first.paths[-1] == tmp_path / "out-grid.png"
    with Image.open(first.paths[-1]) as grid:
        assert grid.size[1] == 4 * (128 + 2), "images, reconstructions, two levels alone"
