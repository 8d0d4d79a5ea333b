import json

import pytest
import torch
from builders import small_autoencoder, synthetic_images

from vqvae2.autoencoder.pixels import Pixels, PixelsConfig
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import SamplingConfig, paint_over
from vqvae2.weights import fingerprint

CONFIG = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)


@pytest.fixture
def pipeline(factors):
    autoencoder = small_autoencoder(factors, dtype=torch.float32)
    grids = autoencoder.config.grids(16, 16)
    domains = [
        Domain(grid=grid, coarser=tuple(grids[:level]), num_classes=2)
        for level, grid in enumerate(grids)
    ]
    sampling = (SamplingConfig(temperature=0.9),) * len(grids)
    config = PipelineConfig(image_size=16, class_names=("cat", "dog"), sampling=sampling)
    priors = [Prior(CONFIG, domain).eval() for domain in domains]
    return Pipeline(autoencoder, config, priors)


def test_saved_and_loaded_it_is_the_same(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    again = Pipeline.from_pretrained(tmp_path)
    assert again.config == pipeline.config
    assert fingerprint(again.autoencoder) == fingerprint(pipeline.autoencoder)
    assert not any(module.training for module in (again.autoencoder, *again.priors))
    a, b = (p.sample(["dog", 0], seeds=[4, 5]) for p in (pipeline, again))
    assert torch.equal(a.images, b.images)


def test_it_lies_on_disk_in_the_layout_of_the_hub(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    folders = ["autoencoder", *(f"priors/{level}" for level in range(len(pipeline.priors)))]
    for folder in folders:
        assert (tmp_path / folder / "model.safetensors").is_file()
        assert json.loads((tmp_path / folder / "config.json").read_text())["version"] == 2


def test_redrawing_keeps_the_codes_outside_the_box_and_of_the_kept_levels(pipeline):
    images, labels = torch.rand(2, 3, 16, 16), ["cat", "dog"]
    before = pipeline.encode(images)
    painted = pipeline.encode(paint_over(images, (0, 0.5, 1, 1)))
    half = pipeline.inpaint(images, labels, seeds=[1, 2])
    for old, new in zip(painted, half.codes, strict=True):
        rows = old.shape[1] // 2
        assert torch.equal(new[:, :rows], old[:, :rows])
    assert not torch.equal(half.codes[-1], painted[-1])
    if len(before) > 1:
        variation = pipeline.inpaint(images, labels, box=(0, 0, 1, 1), keep_levels=1)
        assert torch.equal(variation.codes[0], before[0])
    assert torch.equal(half.codes[0], pipeline.inpaint(images, labels, seeds=[1, 2]).codes[0])
    with pytest.raises(ValueError, match="keep_levels must be in"):
        pipeline.inpaint(images, labels, keep_levels=len(before))


def test_what_is_redrawn_knows_nothing_of_what_was_there(pipeline):
    """Codes see their surroundings, so the part is painted over before the rest is encoded."""
    images = torch.rand(1, 3, 16, 16)
    other = images.clone()
    other[:, :, 8:] = torch.rand(1, 3, 8, 16)
    a, b = (pipeline.inpaint(dataset, ["cat"], seeds=[1]) for dataset in (images, other))
    assert torch.equal(a.images, b.images)


def test_a_box_is_painted_with_what_lies_beside_it():
    images = torch.arange(16.0).view(1, 1, 4, 4)
    below = paint_over(images, (0, 0.5, 1, 1))[0, 0]
    assert torch.equal(below, images[0, 0, [0, 1, 1, 1]])
    right = paint_over(images, (0.5, 0, 1, 1))[0, 0]
    assert torch.equal(right, images[0, 0][:, [0, 1, 1, 1]])
    assert torch.equal(paint_over(images, (0, 0, 1, 0.5))[0, 0], images[0, 0, [2, 2, 2, 3]])
    assert torch.equal(paint_over(images, (0, 0, 0.5, 1))[0, 0], images[0, 0][:, [2, 2, 2, 3]])
    assert (paint_over(images, (0, 0, 1, 1)) == 0.5).all()


def test_given_maps_that_do_not_fit_the_request_are_one_clear_line(pipeline):
    codes = pipeline.encode(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="a given map of level 0 for each of 4 images, got 2"):
        pipeline.sample([0] * 4, given=codes, batch=2)
    with pytest.raises(ValueError, match=r"Expected one given map, or None, per level"):
        pipeline.sample([0] * 2, given=[*codes, None])


def test_without_priors_there_is_nothing_to_redraw():
    pixels = Pipeline(Pixels(PixelsConfig()), PipelineConfig(image_size=8))
    assert pixels.device.type == "cpu"
    images = torch.rand(1, 3, 8, 8)
    assert (pixels.reconstruct(images) - images).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="Needs the priors of all 1 levels, 0 are trained"):
        pixels.inpaint(images, [0])


def test_a_name_on_the_hub_is_downloaded(pipeline, tmp_path, monkeypatch):
    import huggingface_hub

    pipeline.save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(tmp_path)
    )
    assert Pipeline.from_pretrained("someone/cats").config == pipeline.config
    assert asked == ["someone/cats"]


def test_a_name_that_is_nowhere_is_one_clear_line():
    with pytest.raises(ValueError, match="neither a folder nor a model that the hub gave us"):
        Pipeline.from_pretrained("someone/no-such-model-at-all")


def test_samples_are_images_with_their_codes_labels_and_seeds(pipeline):
    samples = pipeline.sample(["cat", "dog", "cat"], batch=2)
    assert samples.images.shape == (3, 3, 16, 16)
    assert 0 <= samples.images.min() <= samples.images.max() <= 1
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.seeds == [0, 1, 2]
    torch.testing.assert_close(pipeline.decode(samples.codes), samples.images)


def test_memory_of_sampling_is_bounded_by_the_batch_and_images_are_the_same(pipeline):
    whole = pipeline.sample([0, 1, 0, 1, 0], batch=5)
    parts = list(pipeline.sample_batches([0, 1, 0, 1, 0], batch=2))
    assert [len(part.images) for part in parts] == [2, 2, 1]
    for level, codes in enumerate(whole.codes):
        assert torch.equal(torch.cat([part.codes[level] for part in parts]), codes)


def test_a_real_image_is_completed_from_its_upper_half(pipeline):
    codes = pipeline.encode(synthetic_images(2))
    given = [code.clone() for code in codes]
    for code in given:
        code[:, code.shape[1] // 2 :] = -1
    completed = pipeline.sample([0, 1], seeds=[1, 2], given=given)
    for mine, theirs in zip(completed.codes, codes, strict=True):
        half = mine.shape[1] // 2
        assert torch.equal(mine[:, :half], theirs[:, :half])


def test_log_prob_has_a_value_a_code(pipeline):
    nats = pipeline.log_prob(synthetic_images(3), ["cat", "dog", "cat"])
    assert [n.shape for n in nats] == [code.shape for code in pipeline.encode(synthetic_images(3))]
    assert all((n < 0).all() for n in nats)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["cta"], {}, "Unknown class 'cta'; did you mean cat"),
        ([2], {}, r"must be in \[0, 2\), got 2"),
        (["5"], {}, r"must be in \[0, 2\), got 5"),
        ([0, 1], {"seeds": [1]}, "got 1 seeds for 2 images"),
        ([], {}, "at least one image"),
    ],
)
def test_bad_requests_are_one_clear_line(pipeline, labels, options, message):
    with pytest.raises(ValueError, match=message):
        pipeline.sample(labels, **options)


def test_without_priors_it_encodes_but_says_that_it_cannot_sample(pipeline):
    bare = Pipeline(pipeline.autoencoder, pipeline.config)
    assert bare.reconstruct(synthetic_images(1)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="0 are trained; repeat `vqvae2 train`"):
        bare.sample([0])
