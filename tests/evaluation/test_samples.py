"""How samples are measured against images and reconstructions, on small models."""

from dataclasses import replace

import pytest
import torch
from builders import save_network, small_autoencoder, synthetic_images

from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images, quiet
from vqvae2.data.order import evenly_spaced
from vqvae2.evaluation.samples import (
    SampleEvaluationConfig,
    best,
    draw,
    measure_quality,
    recognised,
)
from vqvae2.imaging.convert import to_uint8
from vqvae2.metrics.classifier import as_extractor, train_classifier
from vqvae2.metrics.extractors import torchscript
from vqvae2.metrics.features import Features, distances_between, look, look_once
from vqvae2.metrics.fid import frechet_distance
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.report.formatting import quality_sets
from vqvae2.sampling import SamplingConfig

CONFIG = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)


@pytest.fixture(scope="module")
def data():
    return open_images(DataConfig(size=16, synthetic_images=800, validation_fraction=0.3))


@pytest.fixture(scope="module")
def pipeline(data):
    torch.manual_seed(0)
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    grids = autoencoder.config.grids(16, 16)
    domains = [
        Domain(grid=grid, coarser=tuple(grids[:level]), num_classes=12)
        for level, grid in enumerate(grids)
    ]
    config = PipelineConfig(
        image_size=16, class_names=data.class_names, sampling=(SamplingConfig(), SamplingConfig())
    )
    return Pipeline(autoencoder, config, [Prior(CONFIG, domain).eval() for domain in domains])


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "judge.pt"
    save_network(path, outputs=12)
    return torchscript(path, "Judge")


def test_every_set_has_the_same_number_of_images_and_every_figure(pipeline, data, extractor):
    steps = []
    wanted = SampleEvaluationConfig(60, (1.0, 0.5))
    figures, kept = measure_quality(pipeline, data, extractor, wanted, lambda *a: steps.append(a))
    assert figures.validation.num_images == 60
    assert list(figures.by_fraction) == list(kept) == ["1", "0.5"]
    for seen in quality_sets(figures).values():
        assert seen.num_images == 60
        assert {"fid", "kid", "precision", "recall", "inception_score"} <= set(seen.values)
    assert {text for text, _, _ in steps} >= {"training images", "samples", "comparing"}
    assert figures.digest == figures.selector_digest == extractor.digest
    assert len(kept["0.5"].seen) == 60


def test_samples_have_the_classes_of_the_training_images(pipeline, data, extractor):
    wanted = SampleEvaluationConfig(61, (1.0, 0.5))
    _, kept = measure_quality(pipeline, data, extractor, wanted)
    shares = data.train.labels[evenly_spaced(len(data.train), 61)].bincount(minlength=12)
    assert len(shares.unique()) > 1
    for samples in kept.values():
        assert samples.labels.bincount(minlength=12).tolist() == shares.tolist()


def test_samples_are_those_of_the_pipeline(pipeline, extractor):
    found = draw(pipeline, extractor, torch.tensor([2, 2, 0]), 1, extractor, quiet)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.seeds.tolist() == [0, 1, 0, 1]
    alone = pipeline.sample([1], seeds=[1]).images
    expected = look(extractor, [to_uint8(alone)])
    torch.testing.assert_close(found.seen.features[3:], expected.features)


def test_a_kept_fraction_is_the_best_of_its_first_draws(pipeline, extractor):
    wanted = torch.full((12,), 2)
    found = draw(pipeline, extractor, wanted, 0.25, extractor, quiet)
    assert len(found.labels) == 96
    own = found.seen.probabilities.gather(1, found.labels[:, None])[:, 0]
    torch.testing.assert_close(found.scores, own)
    means = []
    for fraction in (1.0, 0.5, 0.25):
        kept = best(found, wanted, fraction)
        assert kept.seeds.max() < 2 / fraction
        assert kept.labels.bincount().tolist() == [2] * 12
        means.append(kept.scores.mean().item())
    assert means == sorted(means)
    assert means[0] < means[-1]
    top = best(found, wanted, 0.25).scores.view(12, 2).sort(descending=True).values
    assert torch.equal(top, own.view(12, 8).topk(2).values)


def test_one_network_chooses_and_another_measures(pipeline, data, extractor, tmp_path):
    save_network(tmp_path / "seven.pt", outputs=7)
    measure = torchscript(tmp_path / "seven.pt", "Seven")
    wanted = SampleEvaluationConfig(24, (1.0, 0.5))
    with pytest.raises(ValueError, match="Seven tells 7 classes apart, the model has 12"):
        measure_quality(pipeline, data, measure, wanted)
    _, chosen = measure_quality(pipeline, data, measure, wanted, judge=extractor)
    _, expected = measure_quality(pipeline, data, extractor, wanted)
    assert torch.equal(chosen["0.5"].seeds, expected["0.5"].seeds)


def test_the_figures_are_those_of_the_sets(pipeline, data, extractor):
    figures, _ = measure_quality(pipeline, data, extractor, SampleEvaluationConfig(48))
    real, validation = (
        look(extractor, [part.batch(evenly_spaced(len(part), 48))])
        for part in (data.train, data.validation)
    )
    expected = distances_between(real, validation)
    accuracy = {"class_accuracy": figures.validation["class_accuracy"]}
    assert figures.validation.values == pytest.approx({**expected.values, **accuracy})
    assert figures.validation["fid"] == pytest.approx(
        frechet_distance([real.features], [validation.features])
    )


def test_too_few_images_and_wrong_fractions_are_one_clear_line(pipeline, data, extractor):
    with pytest.raises(ValueError, match=r"Kept fractions must be in \(0, 1\], got \[0\]"):
        SampleEvaluationConfig(10, (0,))
    with pytest.raises(ValueError, match="at least 10 in each, got 9"):
        measure_quality(pipeline, data, extractor, SampleEvaluationConfig(9))


def test_recognised_is_the_share_that_the_network_finds_likeliest():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    seen = Features(torch.zeros(3, 2), probabilities, (3, 8, 8))
    assert recognised(seen, torch.tensor([0, 1, 1]), 2) == {"class_accuracy": pytest.approx(2 / 3)}
    behind = torch.cat([torch.ones(3, 1), probabilities], 1)
    behind = Features(torch.zeros(3, 2), behind, (3, 8, 8))
    assert recognised(behind, torch.tensor([0, 1, 1]), 2)["class_accuracy"] == pytest.approx(2 / 3)
    assert recognised(seen, torch.tensor([0, 1, 1]), 5) == {}


def test_temperatures_are_sets_of_their_own(pipeline, data, extractor):
    figures, _ = measure_quality(
        pipeline, data, extractor, SampleEvaluationConfig(48, (1.0,), (1.0, 0.1))
    )
    cool = figures.by_temperature
    assert cool["1"].values == pytest.approx(figures.by_fraction["1"].values)
    assert cool["0.1"]["fid"] != cool["1"]["fid"]
    assert list(quality_sets(figures))[-1] == "samples at temperature 0.1"


def test_a_temperature_leaves_the_rest_of_the_draw_as_it_is(pipeline, data, extractor):
    config = replace(pipeline.config, sampling=(SamplingConfig(temperature=0.7, top_k=2),) * 2)
    narrow = Pipeline(pipeline.autoencoder, config, pipeline.priors)
    figures, _ = measure_quality(
        narrow, data, extractor, SampleEvaluationConfig(24, (1.0,), (0.7,))
    )
    expected = figures.by_fraction["1"].values
    assert figures.by_temperature["0.7"].values == pytest.approx(expected)


def test_a_network_looks_at_the_same_pixels_once(extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE2_CACHE", str(tmp_path))
    looks = []

    def count(images):
        looks.append(len(images))
        return extractor.features(images)

    counted = replace(extractor, features=count)
    images = to_uint8(synthetic_images(12))
    first = look_once(counted, lambda: [images])
    again = look_once(counted, lambda: [images])
    assert len(looks) == 1
    assert torch.equal(first.features, again.features)
    assert (first.shape, again.shape) == ((3, 16, 16), (3, 16, 16))
    look_once(counted, lambda: [255 - images])
    assert len(looks) == 2, "other pixels"
    look_once(replace(counted, digest="other"), lambda: [images])
    assert len(looks) == 3, "another network"
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(look_once(counted, lambda: [images]).features, first.features)
    assert len(looks) == 4, "what is cut short is looked at again"
    monkeypatch.setenv("VQVAE2_CACHE", "/proc/nowhere")
    assert len(look_once(counted, lambda: [images])) == 12


def test_sets_of_two_sizes_or_of_grey_images_are_one_clear_line(extractor):
    small, large = (look(extractor, [to_uint8(synthetic_images(12, side))]) for side in (16, 32))
    with pytest.raises(ValueError, match=r"two sizes .* \(3, 16, 16\) and \(3, 32, 32\)"):
        distances_between(small, large)
    with pytest.raises(ValueError, match=r"Expected images \(B, 3, H, W\) of one size"):
        look(extractor, [torch.zeros(4, 1, 16, 16, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="of one size"):
        look(extractor, [to_uint8(synthetic_images(4, side)) for side in (16, 32)])


def test_a_classifier_trained_on_the_images_is_an_extractor(data):
    model = train_classifier(data.train, 12, steps=2)
    extractor = as_extractor(model, "own")
    images = data.validation.batch(torch.arange(4))
    with torch.no_grad():
        features, probabilities = extractor.features(images), extractor.probabilities(images)
        logits = model(images.float() / 255)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    torch.testing.assert_close(model[-1](features), logits)
    assert as_extractor(model, "other").digest == extractor.digest


def test_a_class_without_images_shifts_no_other(pipeline, extractor):
    """The judge has as many outputs as classes, also where the last of them never comes."""
    counts = torch.tensor([3, 0, 2, *[0] * 9])
    found = draw(pipeline, extractor, counts, 0.5, extractor, quiet)
    own = found.seen.probabilities.gather(1, found.labels[:, None])[:, 0]
    torch.testing.assert_close(found.scores, own)
    assert best(found, counts, 0.5).labels.tolist() == [0, 0, 0, 2, 2]
