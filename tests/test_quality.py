"""How samples are measured against pictures and reconstructions, on small models."""

import pytest
import torch
from conftest import pictures, save_network, small_autoencoder

from vqvae2.data.images import DataConfig, open_pictures
from vqvae2.data.order import spread
from vqvae2.likelihood import Draw
from vqvae2.metrics.classifier import as_extractor, train_classifier
from vqvae2.metrics.features import torchscript
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.quality import Seen, distances_between, look, look_once
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sheets import to_uint8
from vqvae2.training.quality import (
    SampleQuality,
    best,
    draw,
    measure_quality,
    quality_rows,
    recognised,
    show_neighbours,
)

CONFIG = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)


@pytest.fixture(scope="module")
def data():
    return open_pictures(DataConfig(size=16, synthetic_pictures=800, held_out_fraction=0.3))


@pytest.fixture(scope="module")
def pipeline(data):
    torch.manual_seed(0)
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    grids = autoencoder.config.grids(16, 16)
    domains = [
        Domain(num_codes=24, grid=grid, coarser_grids=tuple(grids[:level]), num_classes=12)
        for level, grid in enumerate(grids)
    ]
    config = PipelineConfig(image_size=16, class_names=data.class_names, draws=(Draw(), Draw()))
    return Pipeline(autoencoder, config, [Prior(CONFIG, domain).eval() for domain in domains])


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    path = tmp_path_factory.mktemp("network") / "judge.pt"
    save_network(path, outputs=12)
    return torchscript(path, "Judge")


def test_every_set_has_the_same_number_of_pictures_and_every_figure(pipeline, data, extractor):
    steps = []
    wanted = SampleQuality(60, (1.0, 0.5), batch=50)
    figures, kept = measure_quality(pipeline, data, extractor, wanted, lambda *a: steps.append(a))
    assert figures["num_pictures"] == 60
    assert list(figures["samples_by_kept_fraction"]) == ["1", "0.5"]
    for _, seen in quality_rows(figures):
        assert seen["num_pictures"] == 60
        assert {"fid", "kid", "precision", "recall", "inception_score"} <= set(seen)
    assert {text for text, _, _ in steps} >= {"training pictures", "samples", "comparing"}
    assert ("samples", 120, 120) in steps
    assert figures["sha256"] == extractor.digest
    assert list(kept) == ["1", "0.5"]
    assert kept["0.5"].labels.bincount().tolist() == [5] * 12
    assert len(kept["0.5"].seen) == 60


def test_samples_are_those_of_the_pipeline(pipeline, data, extractor):
    wanted = SampleQuality(24, batch=7)
    drawn = draw(pipeline, extractor, 12, 24, wanted, lambda *a: None)
    assert (drawn.labels[13], drawn.seeds[13]) == (1, 1)
    alone = pipeline.sample([1], seeds=[1]).images
    expected = look(extractor, [to_uint8(alone)])
    torch.testing.assert_close(drawn.seen.features[13:14], expected.features)


def test_a_kept_fraction_is_the_best_of_its_first_draws(pipeline, extractor):
    wanted = SampleQuality(24, (1.0, 0.5, 0.25), batch=96)
    drawn = draw(pipeline, extractor, 12, 24, wanted, lambda *a: None)
    assert len(drawn.labels) == 96
    means = []
    for fraction in (1.0, 0.5, 0.25):
        kept = best(drawn, 12, 24, fraction, "Judge")
        assert kept.seeds.max() < 2 / fraction
        assert kept.labels.bincount().tolist() == [2] * 12
        own = kept.seen.probabilities.gather(1, kept.labels[:, None])
        means.append(own.mean().item())
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_the_figures_are_those_of_the_sets(pipeline, data, extractor):
    figures, _ = measure_quality(pipeline, data, extractor, SampleQuality(48))
    real, held_out = (
        look(extractor, [part.batch(spread(len(part), 48))])
        for part in (data.train, data.held_out)
    )
    expected = distances_between(real, held_out)
    expected["recognised"] = figures["held_out"]["recognised"]
    assert figures["held_out"] == pytest.approx(expected)
    assert figures["held_out"]["fid"] == pytest.approx(
        frechet_distance([real.features], [held_out.features])
    )


def test_too_few_pictures_and_wrong_fractions_are_one_clear_line(pipeline, data, extractor):
    with pytest.raises(ValueError, match=r"Kept fractions must be in \(0, 1\], got \[0\]"):
        SampleQuality(10, (0,))
    with pytest.raises(ValueError, match=r"at least 48 pictures in each split .* got 36"):
        measure_quality(pipeline, data, extractor, SampleQuality(40))


def test_recognised_is_the_share_that_the_network_finds_likeliest():
    probabilities = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    seen = Seen(torch.zeros(3, 2), probabilities, (3, 8, 8))
    assert recognised(seen, torch.tensor([0, 1, 1]), 2) == {"recognised": pytest.approx(2 / 3)}
    behind = Seen(torch.zeros(3, 2), torch.cat([torch.ones(3, 1), probabilities], 1), (3, 8, 8))
    assert recognised(behind, torch.tensor([0, 1, 1]), 2) == {"recognised": pytest.approx(2 / 3)}
    assert recognised(seen, torch.tensor([0, 1, 1]), 5) == {}


def test_temperatures_are_sets_of_their_own(pipeline, data, extractor):
    figures, _ = measure_quality(pipeline, data, extractor, SampleQuality(48, (1.0,), (1.0, 0.1)))
    cool = figures["samples_by_temperature"]
    assert cool["1"] == pytest.approx(figures["samples_by_kept_fraction"]["1"])
    assert cool["0.1"]["fid"] != cool["1"]["fid"]
    assert [name for name, _ in quality_rows(figures)][-1] == "samples at temperature 0.1"


def test_a_network_looks_at_the_same_pictures_once(extractor, tmp_path, monkeypatch):
    monkeypatch.setenv("VQVAE2_CACHE", str(tmp_path))
    images, calls = pictures(12), []

    def batches():
        calls.append(1)
        yield to_uint8(images)

    first = look_once(extractor, "some pictures", batches)
    again = look_once(extractor, "some pictures", batches)
    assert len(calls) == 1
    assert torch.equal(first.features, again.features)
    assert (first.shape, again.shape) == ((3, 16, 16), (3, 16, 16))
    look_once(extractor, "other pictures", batches)
    assert len(calls) == 2
    for file in (tmp_path / "features").iterdir():
        file.write_bytes(file.read_bytes()[:-9])
    assert torch.equal(look_once(extractor, "some pictures", batches).features, first.features)
    assert len(calls) == 3, "what is cut short is looked at again"
    monkeypatch.setenv("VQVAE2_CACHE", "/proc/nowhere")
    assert len(look_once(extractor, "some pictures", batches)) == 12


def test_sets_of_two_sizes_or_of_grey_pictures_are_one_clear_line(extractor):
    small, large = (look(extractor, [to_uint8(pictures(12, side))]) for side in (16, 32))
    with pytest.raises(ValueError, match=r"two sizes .* \(3, 16, 16\) and \(3, 32, 32\)"):
        distances_between(small, large)
    with pytest.raises(ValueError, match=r"Expected pictures \(B, 3, H, W\) of one size"):
        look(extractor, [torch.zeros(4, 1, 16, 16, dtype=torch.uint8)])
    with pytest.raises(ValueError, match="of one size"):
        look(extractor, [to_uint8(pictures(4, side)) for side in (16, 32)])


def test_samples_lie_beside_their_nearest_training_pictures(pipeline, data, extractor):
    _, kept = measure_quality(pipeline, data, extractor, SampleQuality(48))
    image = show_neighbours(pipeline, data, extractor, kept["1"])
    assert image.width > 7 * 64
    assert image.height > 10 * 64


def test_a_classifier_trained_on_the_pictures_is_an_extractor(data):
    model = train_classifier(data.train, 12, steps=2)
    extractor = as_extractor(model, "own")
    images = data.held_out.batch(torch.arange(4))
    with torch.no_grad():
        features, probabilities = extractor.features(images), extractor.probabilities(images)
        logits = model(images.float() / 255)
    torch.testing.assert_close(probabilities, logits.softmax(1))
    torch.testing.assert_close(model[-1](features), logits)
    assert as_extractor(model, "other").digest == extractor.digest
