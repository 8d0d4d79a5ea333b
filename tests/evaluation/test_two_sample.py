"""Classifier two-sample tests."""

from dataclasses import replace

import pytest
import torch
from builders import synthetic_images
from small_runs import small_run, train

from vqvae2.data.temporary import TemporaryImages
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.two_sample import TwoSets, evaluate_two_sample, two_sample_auroc
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.classifier import ClassifierTraining

TRAINING = ClassifierTraining(depth=8, steps=60, batch=16, learning_rate=0.05)


def stored(images: torch.Tensor, folder) -> TemporaryImages:
    result = TemporaryImages(folder, torch.zeros(len(images), dtype=torch.int64), images.shape[2])
    result.write(torch.arange(len(images)), to_uint8(images))
    return result


def test_equal_distributions_cannot_be_told_apart_and_blurred_images_can(tmp_path):
    real, same = synthetic_images(160), synthetic_images(160, first=160)
    blurred = torch.nn.functional.avg_pool2d(same, 3, stride=1, padding=1)
    sets = [stored(images, tmp_path) for images in (real, same, blurred)]
    chance = two_sample_auroc(sets[0], sets[1], TRAINING)
    clear = two_sample_auroc(sets[0], sets[2], TRAINING)
    assert 0.3 < chance < 0.7
    assert clear > 0.9


def test_two_sets_have_the_same_indices_of_both(tmp_path):
    real, other = synthetic_images(6), synthetic_images(6, first=6)
    joint = TwoSets(stored(real, tmp_path), stored(other, tmp_path), torch.tensor([1, 4]))
    expected = to_uint8(torch.stack([real[1], real[4], other[1], other[4]]))
    assert torch.equal(joint.batch(torch.arange(4)), expected)
    assert torch.equal(joint.batch(torch.tensor([3, 0])), expected[[3, 0]])
    assert joint.labels.tolist() == [0, 0, 1, 1]


def test_a_run_is_tested_and_keeps_the_result(tmp_path):
    run = small_run()
    run = replace(run, data=replace(run.data, synthetic_images=120))
    folder = train(tmp_path, run)
    training = replace(TRAINING, steps=5)
    result = evaluate_two_sample(Evaluation.open(folder), 24, training)
    assert set(result.auroc) == {"reconstructions", "samples"}
    metrics = folder.read_metrics()
    assert metrics.two_sample == result
    assert metrics.flat()["two_sample.samples"] == result.auroc["samples"]
    with pytest.raises(ValueError, match="needs at least 64 images of each set, got 24"):
        evaluate_two_sample(Evaluation.open(folder), 24)
