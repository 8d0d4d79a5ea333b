import json

import numpy as np
import pytest
import torch
from builders import synthetic_images
from PIL import Image

from vqvae2.data.images import open_images, open_validation
from vqvae2.evaluation.comparison import common_side, compare_sets, metrics_of_runs, open_set
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.image_sets import sample_seeds
from vqvae2.evaluation.validation import evaluate
from vqvae2.imaging.convert import to_float, to_pil, to_uint8
from vqvae2.imaging.png import save_png
from vqvae2.metrics.features import distances_between, extract_features


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
    reference, *others = (open_set(name) for name in (real, same, other))
    comparison = compare_sets(reference, others, extractor)
    assert comparison.num_images == 30
    assert comparison.sets[same]["fid"] == pytest.approx(0, abs=1e-4)
    assert (comparison.sets[same]["precision"], comparison.sets[same]["recall"]) == (1, 1)
    expected = distances_between(
        *(
            extract_features(extractor, [to_uint8(part)])
            for part in (images[:30], images[30:] ** 2)
        )
    )
    assert comparison.sets[other].values == pytest.approx(expected.values)


def test_every_set_is_as_large_as_the_smallest(extractor, tmp_path):
    few = save_images(tmp_path / "few", synthetic_images(12))
    many = save_images(tmp_path / "many", synthetic_images(40))
    comparison = compare_sets(open_set(many), [open_set(few)], extractor)
    assert comparison.num_images == comparison.sets[few].num_images == 12


def test_the_sets_of_a_run_are_its_samples_reconstructions_and_images(folder):
    run, pipeline = folder.read(), Evaluation.open(folder).pipeline
    name = str(folder.path)
    samples = torch.cat(list(open_set(name, count=6).batches(6)))
    labels = open_images(run.data).train.labels
    labels = labels[torch.arange(6) * len(labels) // 6]
    expected = pipeline.sample(labels, sample_seeds(labels, 12).tolist()).images
    assert torch.equal(samples, to_uint8(expected))
    assert torch.equal(samples, torch.cat(list(open_set(f"{name}:samples", count=6).batches(6))))
    validation = open_validation(run.data)
    images = validation.batch(torch.arange(len(validation)))
    pixels = torch.cat(list(open_set(f"{name}:validation").batches(len(validation))))
    assert torch.equal(pixels, images)
    decoded = torch.cat(list(open_set(f"{name}:reconstructions").batches(len(validation))))
    assert torch.equal(decoded, to_uint8(pipeline.reconstruct(to_float(images))))
    assert open_set(f"{name}:train").count > 0


def test_pairs_are_measured_image_by_image(folder, extractor):
    name = str(folder.path)
    reference, decoded = open_set(f"{name}:validation"), open_set(f"{name}:reconstructions")
    pairs = compare_sets(reference, [decoded], extractor, paired=True).pairs[decoded.name]
    a, b = (torch.cat(list(s.batches(s.count))).double() / 255 for s in (reference, decoded))
    assert pairs["mse"] == pytest.approx(float((a - b).square().mean()), rel=1e-5)
    assert pairs.get("ms_ssim") is None
    with pytest.raises(ValueError, match="two sets of as many images"):
        compare_sets(reference, [open_set(f"{name}:train")], extractor, paired=True)


def test_pairs_have_the_same_names(extractor, tmp_path):
    a = save_images(tmp_path / "a", synthetic_images(12))
    b = save_images(tmp_path / "b", synthetic_images(12))
    (tmp_path / "b" / "003.png").rename(tmp_path / "b" / "0035.png")
    with pytest.raises(ValueError, match=r"same names, got 003 in .* and 0035"):
        compare_sets(open_set(a), [open_set(b)], extractor, paired=True)


def test_metrics_of_runs_are_those_of_their_files(folder):
    evaluate(Evaluation.open(folder), limit=8)
    metrics = metrics_of_runs([folder])[str(folder.path)]
    written = json.loads((folder.path / "metrics.json").read_text())
    assert metrics["reconstruction.mse"] == written["reconstruction"]["values"]["mse"]
    nats = written["priors"]["per_level"]["validation_nats_per_code"]
    assert metrics["priors.validation_nats_per_code.1"] == nats[1]
    assert not any("provenance" in name for name in metrics)


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


def test_sets_of_two_sides_are_one_clear_line_before_features_are_extracted(tmp_path, folder):
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


def test_files_of_equal_names_and_lengths_have_features_of_their_own(extractor, tmp_path):
    """As bitmaps have: only their pixels differ."""
    for name, images in (("a", synthetic_images(12)), ("b", synthetic_images(12, first=500))):
        (tmp_path / name).mkdir()
        for number, image in enumerate(images):
            to_pil(image).save(tmp_path / name / f"{number}.bmp")
    a, b = (open_set(str(tmp_path / name)) for name in "ab")
    assert compare_sets(a, [b], extractor).sets[b.name]["fid"] > 1e-3
