from dataclasses import replace

import pytest
from builders import make_folder

from vqvae2.evaluation import extractor as module
from vqvae2.evaluation.extractor import extractor_for
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.runs.folder import RunFolder


def test_own_is_a_classifier_of_the_images_of_the_run(folder, monkeypatch):
    monkeypatch.setattr(module, "TRAINING", ClassifierTraining(depth=8, steps=2, batch=8))
    reports = []
    extractor = extractor_for(folder, "own", progress=lambda *report: reports.append(report))
    assert extractor.name == "own"
    assert reports[-1] == ("classifier of training images", 2, 2)


def test_own_needs_classes(folder, tmp_path, monkeypatch):
    run = folder.read()
    data = replace(run.data, source=str(make_folder(tmp_path / "flat", count=12, classes=0)))
    monkeypatch.setattr(RunFolder, "read", lambda self: replace(run, data=data))
    with pytest.raises(ValueError, match="needs at least 2 classes, got 0; give the path"):
        extractor_for(folder, "own")
