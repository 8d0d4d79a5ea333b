"""Training and measuring from Python."""

from dataclasses import replace

import datasets
import pytest
import torch
from builders import make_folder, synthetic_images
from small_runs import small_run

import vqvae2
from vqvae2.api import class_folders, fit, source_of
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.imaging.convert import to_pil, to_uint8

PIXELS = to_uint8(synthetic_images(40))


def short_run():
    run = small_run()
    return replace(run, data=replace(run.data, validation_fraction=0.25))


def test_a_folder_becomes_a_pipeline_and_is_measured(tmp_path):
    data, events = make_folder(tmp_path / "data", count=48), []
    pipeline = fit(str(data), short_run(), run=tmp_path / "run", callback=events.append)
    assert pipeline.config.class_names == ("class0", "class1")
    assert pipeline.sample("class1", num_images=2).images.shape == (2, 3, 16, 16)
    validated = [event for event in events if event.model is not None]
    assert {event.stage for event in validated} == {"autoencoder", "prior0", "prior1"}
    assert all(event.metrics and not event.model.training for event in validated)
    metrics = vqvae2.evaluate(tmp_path / "run", num_images=8)
    assert metrics.reconstruction.num_images == 8
    again = fit(str(data), short_run(), run=tmp_path / "run")
    assert torch.equal(again.encode(PIXELS)[0], pipeline.encode(PIXELS)[0])


def test_images_in_memory_become_a_source_that_stays(tmp_path):
    labels = [index % 3 for index in range(40)]
    forms = [PIXELS, [to_pil(image) for image in PIXELS], PIXELS.movedim(1, -1).numpy()]
    for number, form in enumerate(forms):
        source = source_of(form, labels, tmp_path / str(number))
        splits = open_images(DataConfig(source=source, size=16))
        assert splits.class_names == ("000000", "000001", "000002")
        assert len(splits.train) + len(splits.validation) == 40
        index = splits.train.names.index("000001/000004.png")
        assert torch.equal(splits.train.batch([index])[0], PIXELS[4])
    assert source_of(PIXELS, labels, tmp_path / "0") == str(tmp_path / "0" / "images")
    with pytest.raises(ValueError, match="other images"):
        source_of(PIXELS.flip(0), labels, tmp_path / "0")


def test_a_data_set_becomes_a_source(tmp_path):
    rows = {"image": [to_pil(image) for image in PIXELS], "label": [0, 1] * 20}
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    dataset = datasets.Dataset.from_dict(rows, features=features)
    splits = open_images(DataConfig(source=source_of(dataset, None, tmp_path), size=16))
    assert splits.class_names == ("cat", "dog")
    assert len(splits.train) + len(splits.validation) == 40


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: fit(PIXELS), "need a run folder"),
        (lambda path: fit("x", labels=[1]), "sub-folders of a folder are its classes"),
        (lambda path: fit(PIXELS, labels=[1], run=path), "got 1 for 40 images"),
        (lambda path: fit("x", short_run(), hours=1), "leave out one"),
        (lambda path: fit(path / "nowhere", short_run(), run=path), "nowhere"),
        (lambda path: fit("x", "demos"), "did you mean demo"),
        (lambda path: class_folders(["a/b"], 1), "without a slash"),
        (lambda path: class_folders([".hidden"], 1), "without a slash"),
        (lambda path: vqvae2.evaluate(path), "is not a run folder"),
    ],
)
def test_a_call_that_cannot_be_meant_is_one_line(call, message, tmp_path):
    with pytest.raises(ValueError, match=message) as error:
        call(tmp_path)
    assert "\n" not in str(error.value)
