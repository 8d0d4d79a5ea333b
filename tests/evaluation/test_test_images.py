"""Measuring a run on images that it has never seen, in place of its validation images."""

from dataclasses import replace

import pytest
from PIL import Image

from vqvae2.data import synthetic
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.likelihood import measure_likelihood
from vqvae2.evaluation.validation import evaluate
from vqvae2.imaging.convert import to_pil


def write_classes(path, names, per_class=2):
    """A folder with images of each class."""
    for name in names:
        (path / name).mkdir(parents=True)
        for index in range(per_class):
            colour = (40 * index % 256, len(name) * 11 % 256, 90)
            Image.new("RGB", (20, 20), colour).save(path / name / f"{index}.png")
    return path


def test_test_images_take_the_place_of_validation_images(folder, tmp_path):
    opened = Evaluation.open(folder)
    source = write_classes(tmp_path / "test", synthetic.CLASS_NAMES)
    tested = replace(opened, test=str(source))
    assert len(tested.validation) == 2 * len(synthetic.CLASS_NAMES)
    assert tested.splits.validation is tested.validation
    assert tested.splits.train.fingerprint() == opened.splits.train.fingerprint()
    metrics = evaluate(tested, 100)
    assert metrics.provenance.data == str(source)
    assert metrics.provenance.validation_images == 2 * len(synthetic.CLASS_NAMES)
    assert metrics.provenance.images_fingerprint == tested.validation.fingerprint()


def test_the_run_s_own_validation_images_as_test_images_give_the_same_likelihood(folder, tmp_path):
    opened = Evaluation.open(folder)
    validation = opened.validation
    for index, label in enumerate(validation.labels.tolist()):
        path = tmp_path / synthetic.CLASS_NAMES[label] / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        to_pil(validation.batch([index])[0].float() / 255).save(path)
    tested = replace(opened, test=str(tmp_path))
    expected = measure_likelihood(opened, 1000).per_level["validation_nats_per_code"]
    nats = measure_likelihood(tested, 1000).per_level["validation_nats_per_code"]
    assert nats == pytest.approx(expected, rel=1e-5)


def test_other_classes_are_one_clear_line(folder, tmp_path):
    source = write_classes(tmp_path / "test", ["cat", "dog"])
    tested = replace(Evaluation.open(folder), test=str(source))
    with pytest.raises(ValueError, match=r"The classes of .* \(cat, dog\) are not those"):
        _ = tested.validation
