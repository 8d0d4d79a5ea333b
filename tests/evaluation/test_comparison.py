"""Runs and folders side by side, and what of a run's images its likelihood knows."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import save_network, synthetic_images
from PIL import Image
from small_runs import small_run, train

from vqvae2.cli.main import run as command
from vqvae2.data.images import load_folder, open_images, open_validation
from vqvae2.evaluation.accuracy_score import evaluate_classification
from vqvae2.evaluation.comparison import (
    common_side,
    compare_sets,
    metrics_of_runs,
    open_set,
)
from vqvae2.evaluation.evaluation import evaluate
from vqvae2.evaluation.image_sets import seeds_within
from vqvae2.evaluation.out_of_distribution import evaluate_outside, likenesses, unlabelled_log_prob
from vqvae2.imaging.convert import to_float, to_pil, to_uint8
from vqvae2.imaging.png import save_png
from vqvae2.metrics.accuracy_score import ClassifierTraining
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.distortion import measure_pairs
from vqvae2.metrics.extractors import torchscript
from vqvae2.metrics.features import distances_between, look
from vqvae2.pipeline import Pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    run = small_run()
    run = replace(run, data=replace(run.data, synthetic_images=240))
    return train(tmp_path_factory.mktemp("compared") / "run", run)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "Small.pt"
    save_network(path)
    return torchscript(path, "Small")


def save_images(folder, images):
    for number, image in enumerate(images):
        save_png(folder / f"{number:03d}.png", to_pil(image))
    return str(folder)


def test_folders_are_compared_as_they_are(extractor, tmp_path):
    images = synthetic_images(60)
    real, same, other = (
        save_images(tmp_path / name, part)
        for name, part in (
            ("real", images[:30]), ("same", images[:30]), ("other", images[30:] ** 2),
        )
    )  # fmt: skip
    reference, *others = (open_set(where) for where in (real, same, other))
    found = compare_sets(reference, others, extractor)
    assert found.num_images == 30
    assert found.sets[same]["fid"] == pytest.approx(0, abs=1e-4)
    assert (found.sets[same]["precision"], found.sets[same]["recall"]) == (1, 1)
    expected = distances_between(
        look(extractor, [to_uint8(images[:30])]), look(extractor, [to_uint8(images[30:] ** 2)])
    )
    assert found.sets[other].values == pytest.approx(expected.values)


def test_every_set_is_as_large_as_the_smallest(extractor, tmp_path):
    few = save_images(tmp_path / "few", synthetic_images(12))
    many = save_images(tmp_path / "many", synthetic_images(40))
    found = compare_sets(open_set(many), [open_set(few)], extractor)
    assert found.num_images == found.sets[few].num_images == 12


def test_a_run_stands_for_its_samples_or_its_images(folder, extractor):
    run, pipeline = folder.read(), Pipeline.open(folder.path)
    where = str(folder.path)
    samples = torch.cat(list(open_set(where, count=6).batches(6)))
    known = open_images(run.data).train.labels
    labels = known[torch.arange(6) * len(known) // 6]
    drawn = pipeline.sample(labels, seeds_within(labels).tolist())
    assert torch.equal(samples, to_uint8(drawn.images))
    assert torch.equal(samples, torch.cat(list(open_set(f"{where}:samples", count=6).batches(6))))
    validation = open_validation(run.data)
    every = torch.arange(len(validation))
    pixels = torch.cat(list(open_set(f"{where}:validation").batches(len(validation))))
    assert torch.equal(pixels, validation.batch(every))
    restored = torch.cat(list(open_set(f"{where}:reconstructions").batches(len(validation))))
    assert torch.equal(restored, to_uint8(pipeline.reconstruct(to_float(validation.batch(every)))))
    assert open_set(f"{where}:train").count > 0


def test_pairs_are_measured_image_by_image(folder, extractor):
    where = str(folder.path)
    reference, restored = open_set(f"{where}:validation"), open_set(f"{where}:reconstructions")
    found = compare_sets(reference, [restored], extractor, paired=True)
    pairs = found.pairs[restored.name]
    a, b = (torch.cat(list(s.batches(s.count))).double() / 255 for s in (reference, restored))
    assert pairs["mse"] == pytest.approx(float((a - b).square().mean()), rel=1e-5)
    assert pairs.get("ms_ssim") is None
    with pytest.raises(ValueError, match="two sets of as many images"):
        compare_sets(reference, [open_set(f"{where}:train")], extractor, paired=True)


def test_ms_ssim_needs_large_images_and_is_1_for_equal_ones():
    images = torch.rand(1, 3, 176, 176)
    same = measure_pairs([(images, images)])
    assert (same["ssim"], same["ms_ssim"]) == (pytest.approx(1), pytest.approx(1))
    noisy = measure_pairs([(images, (images + 0.2 * torch.rand_like(images)).clamp(0, 1))])
    assert 0 < noisy["ms_ssim"] < 1
    with pytest.raises(ValueError, match="Pairs must have one size"):
        measure_pairs([(images, images[..., :-1])])
    with pytest.raises(ValueError, match="at least one pair"):
        measure_pairs([])


def test_what_evaluate_wrote_stands_side_by_side(folder):
    evaluate(folder, limit=8)
    figures = metrics_of_runs([folder])[str(folder.path)]
    written = json.loads((folder.path / "metrics.json").read_text())
    assert figures["reconstruction.mse"] == written["reconstruction"]["values"]["mse"]
    assert (
        figures["priors.validation_nats_per_code.1"]
        == (written["priors"]["per_level"]["validation_nats_per_code"][1])
    )
    assert not any("provenance" in name for name in figures)


def test_folders_of_mixed_sizes_are_one_clear_line(tmp_path):
    save_images(tmp_path / "mixed", synthetic_images(3))
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "mixed" / "wide.png")
    with pytest.raises(ValueError, match=r"not squares of one size \(16x16, 30x20\); give --size"):
        open_set(str(tmp_path / "mixed"))
    assert open_set(str(tmp_path / "mixed"), size=8).count == 4
    with pytest.raises(ValueError, match="is not a run folder"):
        open_set(f"{tmp_path}/mixed:samples")
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="none can be read"):
        open_set(str(tmp_path / "none"))


def test_sets_of_two_sides_are_one_clear_line_before_anything_is_looked_at(tmp_path, folder):
    small = save_images(tmp_path / "small", synthetic_images(12, size=8))
    large = save_images(tmp_path / "large", synthetic_images(12, size=16))
    with pytest.raises(ValueError, match=r"small has 8 pixels a side, .*large 16; give --size"):
        compare_sets(open_set(small), [open_set(large)], None)
    assert common_side([small, f"{folder.path}:samples"]) == 16
    assert common_side([small, large]) == 0


def test_a_split_of_any_data_set_is_a_set():
    assert open_set("synthetic:validation", size=8).side == 8
    with pytest.raises(ValueError, match="needs --size"):
        open_set("some.parquet:train")


def test_files_of_equal_names_and_lengths_are_told_apart(extractor, tmp_path):
    """As bitmaps are: only their pixels differ."""
    for name, images in (("a", synthetic_images(12)), ("b", synthetic_images(12, first=500))):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images):
            to_pil(image).save(tmp_path / name / f"{number}.bmp")
    a, b = (open_set(str(tmp_path / name)) for name in "ab")
    assert compare_sets(a, [b], extractor).sets[b.name]["fid"] > 1e-3


def test_pairs_have_the_same_names(extractor, tmp_path):
    a = save_images(tmp_path / "a", synthetic_images(12))
    b = save_images(tmp_path / "b", synthetic_images(12))
    (tmp_path / "b" / "003.png").rename(tmp_path / "b" / "0035.png")
    with pytest.raises(ValueError, match=r"same names, got 003 in .* beside 0035"):
        compare_sets(open_set(a), [open_set(b)], extractor, paired=True)


def test_without_a_label_every_class_counts_as_much(folder):
    pipeline = Pipeline.open(folder.path)
    images = synthetic_images(3, size=folder.read().data.size)
    found = unlabelled_log_prob(pipeline, images)
    classes = len(pipeline.config.class_names)
    joint = torch.stack(
        [
            sum(part.double().flatten(1).sum(1) for part in pipeline.log_prob(images, [label] * 3))
            for label in range(classes)
        ]
    )
    whole = (
        joint.exp().mean(0).log() if joint.max() > -700 else joint.logsumexp(0) - np.log(classes)
    )
    torch.testing.assert_close(found.sum(0), whole, rtol=1e-9, atol=1e-6)


def test_images_unlike_the_run_are_told_apart(folder, tmp_path):
    noise = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    where = save_images(tmp_path / "noise", noise)
    figures = evaluate_outside(folder, tmp_path / "noise", 20)
    assert figures.num_outside == 20
    assert figures.scores["reconstruction"].auroc > 0.9
    assert folder.read_metrics().out_of_distribution[where] == figures
    others = load_folder(where, 16)
    found = likenesses(Pipeline.open(folder.path), others, 20, "")
    mean = figures.scores["all codes"].outside
    assert float(found["all codes"].mean()) == pytest.approx(mean)
    assert figures.provenance.validation_images == 20


def test_the_score_of_a_run_has_every_row(folder):
    training = ClassifierTraining(depth=8, steps=2, batch=8)
    figures = evaluate_classification(folder, 1000, training)
    classes = len(figures.class_names)
    assert list(figures.trained_on) == ["real", "reconstructions", "samples"]
    for found in figures.trained_on.values():
        assert set(found) == {"real", "reconstructions"}
        for part in found.values():
            assert 0 <= part.top1 <= 1
            assert len(part.by_class) == classes
    evaluate(folder, limit=8)
    assert folder.read_metrics().accuracy_score == figures, "other results leave it there"


def test_one_command_measures_everything(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    network = tmp_path / "Judge.pt"
    save_network(network, outputs=12)
    other = save_images(tmp_path / "other", synthetic_images(12, first=900))
    samples = ["--samples", "48", "--extractor", str(network), "--keep", "1", "0.5"]
    cas = ["--cas", "40", "--score.depth", "8", "--score.steps", "2"]
    outside = ["--outside", other, "--outside-limit", "12", "--temperatures", "0.5"]
    assert command(["evaluate", str(folder.path), *samples, *cas, *outside]) == 0
    shown = capsys.readouterr().out
    for text in ("FID-Judge", "best 50 % of samples", "temperature 0.5", "ResNet-8", "AUROC"):
        assert text in shown
    assert "all codes" in shown.split("AUROC")[1]
    metrics = folder.read_metrics()
    assert metrics.reconstruction
    assert metrics.priors
    assert metrics.out_of_distribution
    for found in metrics.samples["Judge"].by_fraction.values():
        assert 0 <= found["accuracy_score"] <= 1
    for part in (metrics.samples["Judge"], metrics.accuracy_score):
        assert part.provenance.images_fingerprint
    for measurement in metrics.measurements().values():
        assert {*measurement.values, *measurement.per_level} <= set(METRICS)
    assert folder.neighbours("Judge").is_file()
    assert command(["report", str(folder.path)]) == 0
    assert command(["doctor", str(folder.path)]) == 0
    assert "samples were measured with Judge over 48 images" in capsys.readouterr().out


def test_compare_prints_and_writes_what_it_found(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    network = tmp_path / "Small.pt"
    save_network(network)
    run, out = str(folder.path), tmp_path / "found.json"
    against = ["--against", f"{run}:train", "--extractor", str(network), "--count", "24"]
    sets = [run, f"{run}:validation"]
    assert command(["compare", *sets, *against, "--out", str(out)]) == 0
    assert "FID-Small" in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert list(found["sets"]) == sets
    assert found["num_images"] == 24
    evaluate(folder, limit=8)
    assert command(["compare", run, run]) == 0
    assert "reconstruction.mse" in capsys.readouterr().out
    for arguments, line in (
        (["compare"], "one run or folder"),
        (["compare", str(tmp_path)], "is not a run folder; to compare images give --against"),
        (["compare", run, "--against", str(tmp_path / "no"), "--extractor", str(network)], "no"),
        (["compare", run, "--count", "0"], "--count must be at least 1"),
        (["evaluate", run, "--keep", "0.5"], "--keep needs --samples"),
        (["evaluate", run, "--score.steps", "3"], "--score needs --cas"),
        (["evaluate", run, "--samples", "9", "--judge", "x"], "--judge chooses kept fractions"),
        (["compare", run, "--size", "-5"], "--size is a side in pixels, got -5"),
        (["compare", "train", "--against", run, "--extractor", str(network)], "train"),
        (["evaluate", run, "--cas", "-1"], "--cas is a number of images, got -1"),
        (["evaluate", run, "--outside", str(tmp_path / "no")], "no"),
    ):
        assert command(arguments) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
