"""How samples are measured against pictures and reconstructions, on small models."""

import pytest
import torch
from conftest import save_network, small_autoencoder

from vqvae2.data.images import DataConfig, open_pictures
from vqvae2.data.order import spread
from vqvae2.likelihood import Draw
from vqvae2.metrics.features import torchscript
from vqvae2.metrics.fid import frechet_distance
from vqvae2.metrics.quality import distances_between, look
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sheets import to_uint8
from vqvae2.training.quality import SampleQuality, best, draw, measure_quality, quality_rows

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
    figures = measure_quality(pipeline, data, extractor, wanted, lambda *a: steps.append(a))
    assert figures["num_pictures"] == 60
    assert list(figures["samples_by_kept_fraction"]) == ["1", "0.5"]
    for _, seen in quality_rows(figures):
        assert seen["num_pictures"] == 60
        assert {"fid", "kid", "precision", "recall", "inception_score"} <= set(seen)
    assert {text for text, _, _ in steps} >= {"training pictures", "samples", "comparing"}
    assert ("samples", 120, 120) in steps
    assert figures["sha256"] == extractor.digest


def test_samples_are_those_of_the_pipeline(pipeline, data, extractor):
    wanted = SampleQuality(24, batch=7)
    labels, drawn = draw(pipeline, extractor, 12, 24, wanted, lambda *a: None)
    alone = pipeline.sample(labels[13:14], seeds=[1]).images
    expected = look(extractor, [to_uint8(alone)])
    torch.testing.assert_close(drawn.features[13:14], expected.features)


def test_a_kept_fraction_is_the_best_of_its_first_draws(pipeline, extractor):
    wanted = SampleQuality(24, (1.0, 0.5, 0.25), batch=96)
    labels, drawn = draw(pipeline, extractor, 12, 24, wanted, lambda *a: None)
    assert len(labels) == 96
    own = drawn.probabilities.gather(1, labels[:, None])[:, 0]
    means = []
    for fraction in (1.0, 0.5, 0.25):
        kept = best(drawn, labels, 12, 24, fraction, "Judge")
        assert len(kept) == 24
        assert kept.max() < 24 / fraction
        assert labels[kept].bincount().tolist() == [2] * 12
        means.append(own[kept].mean().item())
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_the_figures_are_those_of_the_sets(pipeline, data, extractor):
    figures = measure_quality(pipeline, data, extractor, SampleQuality(48))
    real, held_out = (
        look(extractor, [part.batch(spread(len(part), 48))])
        for part in (data.train, data.held_out)
    )
    expected = distances_between(real, held_out)
    assert figures["held_out"] == pytest.approx(expected)
    assert figures["held_out"]["fid"] == pytest.approx(
        frechet_distance([real.features], [held_out.features])
    )


def test_too_few_pictures_and_wrong_fractions_are_one_clear_line(pipeline, data, extractor):
    with pytest.raises(ValueError, match=r"Kept fractions must be in \(0, 1\], got \[0\]"):
        SampleQuality(10, (0,))
    with pytest.raises(ValueError, match="at least 4 pictures a class in each split, got 36"):
        measure_quality(pipeline, data, extractor, SampleQuality(40))
