from pathlib import Path

import numpy as np
import pytest
import torch
from builders import save_network
from PIL import Image

from vqvae2.export.samples import SampleRequest, export_class_grid, export_samples, file_name
from vqvae2.imaging.png import read_settings
from vqvae2.metrics.extractors import Extractor, torchscript
from vqvae2.sampling.config import SamplingConfig

SAMPLING = (SamplingConfig(temperature=0.5), SamplingConfig())


def request(**changes: object) -> SampleRequest:
    values = {"labels": (1,), "num_images": 3, "seed": 5, "sampling": SAMPLING, "source": "model"}
    return SampleRequest(**{**values, **changes})


def pixels(path: Path) -> bytes:
    return Image.open(path).tobytes()


@pytest.fixture
def judge(tmp_path: Path) -> Extractor:
    save_network(tmp_path / "judge.pt", outputs=2)
    return torchscript(tmp_path / "judge.pt", "judge")


def test_every_sample_is_a_file_that_stores_its_settings(pipeline, tmp_path):
    list(export_samples(pipeline, request(), tmp_path / "out"))
    names = [f"class1-0000{seed}.png" for seed in (5, 6, 7)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    settings = read_settings(tmp_path / "out" / names[1])
    assert (settings["class"], settings["seed"], settings["run"]) == ("class1", 6, "model")
    assert [config["temperature"] for config in settings["sampling"]] == [0.5, 1.0]
    assert settings["decoder"] == "plain"


def test_progress_reports_the_images_and_files_so_far(pipeline, tmp_path):
    reports = list(
        export_samples(pipeline, request(labels=(0, 1), batch_size=4), tmp_path / "out")
    )
    assert [(report.done, report.total) for report in reports] == [(4, 6), (6, 6), (6, 6)]
    assert [len(report.paths) for report in reports] == [4, 2, 1]
    assert reports[-1].paths == (tmp_path / "out-grid.png",)
    assert all(path.is_file() for report in reports for path in report.paths)


def test_the_batch_size_changes_no_image(pipeline, tmp_path):
    list(export_samples(pipeline, request(), tmp_path / "a"))
    list(export_samples(pipeline, request(batch_size=1), tmp_path / "b"))
    for path in (tmp_path / "a").iterdir():
        assert pixels(path) == pixels(tmp_path / "b" / path.name)


def test_the_grid_shows_all_images_in_rows_of_8(pipeline, tmp_path):
    many = request(labels=(1, 0), num_images=18)
    list(export_samples(pipeline, many, tmp_path / "out"))
    with Image.open(tmp_path / "out-grid.png") as grid:
        assert grid.size[1] == 2 * 3 * (128 + 2), "rows of 8, 8 and 2 images per class"
        assert 8 * 130 < grid.size[0] < 9 * 130
    assert many.grid_total == 36


def test_a_grid_of_very_many_images_shows_complete_rows_of_each_class():
    many = request(labels=tuple(range(10)), num_images=240)
    assert many.num_in_grid == 2 * 8
    assert request(labels=tuple(range(50)), num_images=9).grid_total == 20 * 8


def test_a_model_without_classes_makes_files_named_image(pipeline_without_classes, tmp_path):
    list(export_samples(pipeline_without_classes, request(labels=(0,)), tmp_path / "out"))
    assert (tmp_path / "out" / "image-00005.png").is_file()


def test_a_judge_selects_the_samples_with_the_highest_probability(pipeline, judge, tmp_path):
    list(export_samples(pipeline, request(num_images=9), tmp_path / "all"))
    selecting = request(keep=0.34, batch_size=4)
    reports = list(export_samples(pipeline, selecting, tmp_path / "best", judge))
    assert [report.done for report in reports] == [4, 8, 9, 9, 9]
    probabilities = {
        path.name: float(
            judge.probabilities(
                torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None]
            )[0, 1]
        )
        for path in (tmp_path / "all").iterdir()
    }
    expected = sorted(probabilities, key=probabilities.__getitem__)[-3:]
    assert sorted(path.name for path in (tmp_path / "best").iterdir()) == sorted(expected)
    for name in expected:
        assert pixels(tmp_path / "best" / name) == pixels(tmp_path / "all" / name)
        settings = read_settings(tmp_path / "best" / name)
        assert settings["judge"] == "judge"
        assert settings["score"] == pytest.approx(probabilities[name], rel=1e-4)


def test_a_fraction_that_cannot_be_selected_is_refused(pipeline, tmp_path):
    with pytest.raises(ValueError, match=r"in \(0, 1\], got 2"):
        request(keep=2)
    with pytest.raises(ValueError, match="a judge must select them"):
        list(export_samples(pipeline, request(keep=0.5), tmp_path / "out"))


def test_the_class_grid_is_one_file_with_the_samples_of_seeds_0_1_2(pipeline, tmp_path):
    path = tmp_path / "samples" / "grid.png"
    *_, last = export_class_grid(pipeline, path, images_per_class=3)
    assert (last.done, last.paths) == (6, (path,))
    with Image.open(path) as grid:
        width = grid.size[0] - 3 * 130
        first = grid.crop((width, 0, width + 128, 128)).resize((16, 16), Image.Resampling.NEAREST)
    sample = pipeline.sample(["class0"], [0]).images[0]
    difference = torch.from_numpy(np.array(first)).permute(2, 0, 1) / 255 - sample
    assert difference.abs().max() < 1 / 255


def test_class_names_with_the_same_letters_get_different_files():
    assert [file_name(["a b", "a_b", "c"], label) for label in range(3)] == ["a_b-0", "a_b-1", "c"]
    assert file_name([], 0) == "image"
