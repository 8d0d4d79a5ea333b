import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import small_autoencoder, synthetic_images
from PIL import Image

from vqvae2 import weights
from vqvae2.autoencoder import Pixels, PixelsConfig
from vqvae2.imaging.convert import to_pil, to_uint8
from vqvae2.imaging.png import read_png, read_settings
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import UNKNOWN, SamplingConfig, paint_over
from vqvae2.weights import fingerprint, save_autoencoder

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


def test_a_saved_pipeline_is_the_same_after_loading(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    loaded = Pipeline.from_pretrained(tmp_path)
    assert loaded.config == pipeline.config
    assert fingerprint(loaded.autoencoder) == fingerprint(pipeline.autoencoder)
    assert not any(module.training for module in (loaded.autoencoder, *loaded.priors))
    a, b = (p.sample(["dog", 0], seeds=[4, 5]) for p in (pipeline, loaded))
    assert torch.equal(a.images, b.images)


def test_a_saved_pipeline_has_the_layout_of_the_hub(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    folders = ["autoencoder", *(f"priors/{level}" for level in range(len(pipeline.priors)))]
    for folder in folders:
        assert (tmp_path / folder / "model.safetensors").is_file()
        assert json.loads((tmp_path / folder / "config.json").read_text())["version"] == 3
    assert json.loads((tmp_path / "config.json").read_text())["version"] == 2


def test_a_new_decoder_keeps_codes_and_priors_valid(pipeline, tmp_path):
    images = synthetic_images(2)
    codes, old = pipeline.encode(images), pipeline.reconstruct(images)
    pipeline.save_pretrained(tmp_path)
    torch.nn.init.normal_(pipeline.autoencoder.decoder[0].weight)
    save_autoencoder(tmp_path / "autoencoder", pipeline.autoencoder)
    loaded = Pipeline.from_pretrained(tmp_path)
    assert len(loaded.priors) == len(pipeline.priors)
    assert not torch.allclose(loaded.reconstruct(images), old)
    for a, b in zip(codes, loaded.encode(images), strict=True):
        assert torch.equal(a, b)


def test_a_changed_encoder_codebook_or_pixel_mean_is_refused(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    model = pipeline.autoencoder
    for tensor in (model.projections[0].weight, model.codebooks[0].vectors):
        before = tensor.detach().clone()
        tensor.data += 1
        save_autoencoder(tmp_path / "autoencoder", model)
        with pytest.raises(ValueError, match=r"trained on the codes of .*; train the prior again"):
            Pipeline.from_pretrained(tmp_path)
        tensor.data.copy_(before)
    model.config = replace(model.config, pixel_mean=0.4)
    save_autoencoder(tmp_path / "autoencoder", model)
    with pytest.raises(ValueError, match="train the prior again"):
        Pipeline.from_pretrained(tmp_path)


def test_open_takes_a_run_folder_a_saved_pipeline_or_a_name_of_the_hub(
    pipeline, tmp_path, monkeypatch
):
    import huggingface_hub

    names = []
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, **_: names.append(name) or str(tmp_path / "run" / "model"),
    )
    pipeline.save_pretrained(tmp_path / "run" / "model")
    for name in (tmp_path / "run", tmp_path / "run" / "model", "someone/cats"):
        assert Pipeline.open(name).config == pipeline.config
    assert names == ["someone/cats"]


def test_half_precision_halves_the_bytes_and_changes_almost_nothing(pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "whole")
    pipeline.save_pretrained(tmp_path / "half", half_precision=True)
    whole, half = (Pipeline.open(tmp_path / name) for name in ("whole", "half"))
    images = torch.rand(4, 3, 16, 16)
    for one, other in zip(whole.encode(images), half.encode(images), strict=True):
        assert (one == other).float().mean() > 0.7  # random weights; trained ones keep 99.7 %
    for model in half.models:
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    codes = whole.encode(images)
    difference = whole.decode(codes) - half.decode(codes)
    assert 0 < difference.abs().max() < 1e-2
    for part in ("priors/0", "autoencoder"):
        sizes = [
            (tmp_path / name / part / "model.safetensors").stat().st_size
            for name in ("whole", "half")
        ]
        assert sizes[1] < 0.7 * sizes[0]
    half.save_pretrained(tmp_path / "again", half_precision=True)
    again = Pipeline.open(tmp_path / "again")
    for one, other in zip(half.encode(images), again.encode(images), strict=True):
        assert torch.equal(one, other)


def test_a_model_of_the_package_opens_by_its_name(pipeline, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path / "package")
    pipeline.save_pretrained(tmp_path / "package" / "shapes")
    assert weights.pretrained_names() == ["shapes"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()  # such as a folder of images of the same name
    assert Pipeline.open("shapes").config == pipeline.config
    other = replace(pipeline, config=replace(pipeline.config, class_names=("x", "y")))
    other.save_pretrained(tmp_path / "shapes")
    assert Pipeline.open("shapes").config == other.config
    with pytest.raises(ValueError, match=r"a model of this package \(shapes\)"):
        Pipeline.open("someone/shape")


def test_open_says_what_it_expects(tmp_path):
    with pytest.raises(ValueError, match=r"expected model/autoencoder in a run folder .*train`"):
        Pipeline.open(tmp_path)
    with pytest.raises(ValueError, match="is not a folder, and the hub did not provide a model"):
        Pipeline.open("someone/no-such-model-at-all")


def test_one_class_is_drawn_as_often_as_wanted(pipeline):
    samples = pipeline.sample("dog", num_images=3, seed=5)
    assert (samples.labels.tolist(), samples.seeds) == ([1, 1, 1], [5, 6, 7])
    listed = pipeline.sample([1, 1, 1], seeds=[5, 6, 7])
    assert torch.equal(samples.images, listed.images)
    assert len(pipeline.sample(0)) == 1


def test_controls_change_all_levels_or_each(pipeline):
    cold = pipeline.sample("cat", num_images=2, temperature=0)
    assert torch.equal(cold.images[0], cold.images[1])
    each = pipeline.sample("cat", num_images=2, temperature=[0.0] * len(pipeline.priors))
    assert torch.equal(cold.images, each.images)
    assert cold.settings["sampling"][0]["temperature"] == 0
    with pytest.raises(ValueError, match="temperature"):
        pipeline.sample("cat", temperature=-1)


def test_images_in_any_form_are_encoded_in_batches(pipeline):
    images = synthetic_images(5)
    pixels = to_uint8(images)
    codes = pipeline.encode(pixels)
    for form in (pixels.movedim(1, -1).numpy(), [to_pil(image) for image in pixels]):
        for one, other in zip(codes, pipeline.encode(form, batch=2), strict=True):
            assert torch.equal(one, other)
    assert pipeline.reconstruct(pixels[0]).shape == (1, 3, 16, 16)
    assert [len(level) for level in pipeline.log_prob(pixels, "cat")] == [5] * len(codes)
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        pipeline.encode(255 * images)


def test_versions_of_a_single_image(pipeline):
    photo = Image.new("RGB", (40, 30), "red")
    samples = pipeline.inpaint(photo, "cat", num_images=3, seed=2)
    assert (len(samples), samples.seeds) == (3, [2, 3, 4])
    assert samples.images.shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match="num_images only for a single one"):
        pipeline.inpaint([photo, photo], "cat", num_images=3)


def test_samples_are_shown_and_saved(pipeline, tmp_path):
    samples = pipeline.sample(["cat", "dog", "dog"], seeds=[1, 1, 1])
    assert repr(samples) == "Samples(3 images 16x16 of cat, dog)"
    assert [image.size for image in samples.to_pil()] == [(16, 16)] * 3
    assert samples.grid(columns=3).width > 3 * 64
    assert samples._repr_png_().startswith(b"\x89PNG")
    paths = samples.save(tmp_path)
    names = ["cat-00001.png", "dog-00001.png", "dog-00001-2.png"]
    assert [path.name for path in paths] == names
    settings = read_settings(paths[1])
    assert (settings["class"], settings["seed"], settings["decoder"]) == ("dog", 1, "plain")
    assert torch.equal(to_uint8(read_png(paths[0])), to_uint8(samples.images[0]))


def test_inpainting_keeps_the_codes_outside_of_the_box_and_of_the_kept_levels(pipeline):
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


def test_inpainting_does_not_depend_on_what_was_in_the_box(pipeline):
    images = torch.rand(1, 3, 16, 16)
    other = images.clone()
    other[:, :, 8:] = torch.rand(1, 3, 8, 16)
    a, b = (pipeline.inpaint(images, ["cat"], seeds=[1]) for images in (images, other))
    assert torch.equal(a.images, b.images)


def test_given_maps_that_do_not_fit_the_request_are_one_clear_line(pipeline):
    codes = pipeline.encode(torch.rand(2, 3, 16, 16))
    with pytest.raises(ValueError, match="a given map of level 0 for each of 4 images, got 2"):
        pipeline.sample([0] * 4, given=codes, batch=2)
    with pytest.raises(ValueError, match=r"Expected one given map, or None, per level"):
        pipeline.sample([0] * 2, given=[*codes, None])


def test_without_priors_images_cannot_be_inpainted():
    pixels = Pipeline(Pixels(PixelsConfig()), PipelineConfig(image_size=8))
    assert pixels.device.type == "cpu"
    images = torch.rand(1, 3, 8, 8)
    assert (pixels.reconstruct(images) - images).abs().max() <= 0.5 / 255 + 1e-6
    with pytest.raises(ValueError, match="Needs the priors of all 1 levels, 0 are trained"):
        pixels.inpaint(images, [0])


def test_samples_are_images_with_their_codes_labels_and_seeds(pipeline):
    samples = pipeline.sample(["cat", "dog", "cat"], batch=2)
    assert samples.images.shape == (3, 3, 16, 16)
    assert 0 <= samples.images.min() <= samples.images.max() <= 1
    assert samples.labels.tolist() == [0, 1, 0]
    assert samples.seeds == [0, 1, 2]
    torch.testing.assert_close(pipeline.decode(samples.codes), samples.images)


@pytest.mark.parametrize(
    "convert",
    [np.array, lambda x: list(np.array(x, dtype=np.uint8)), torch.tensor,
     lambda x: list(torch.tensor(x)), lambda x: torch.tensor(x, dtype=torch.int16), tuple],
    ids=["array", "NumPy integers", "tensor", "scalar tensors", "int16", "tuple"],
)  # fmt: skip
def test_seeds_and_labels_of_any_integer_type_give_the_same_images(pipeline, convert):
    expected = pipeline.sample([0, 1, 1], seeds=[3, 1, 2])
    samples = pipeline.sample(convert([0, 1, 1]), seeds=convert([3, 1, 2]))
    assert torch.equal(samples.images, expected.images)
    assert samples.seeds == [3, 1, 2]
    assert all(type(seed) is int for seed in samples.seeds)
    assert samples.labels.dtype == torch.int64


def test_without_class_names_all_labels_of_the_priors_are_accepted(pipeline):
    named = pipeline.sample(
        np.array(["dog", "cat"]), sampling=[SamplingConfig()] * len(pipeline.priors)
    )
    pipeline.config = PipelineConfig(image_size=16)
    assert torch.equal(pipeline.sample([1, 0]).images, named.images)
    with pytest.raises(ValueError, match=r"Labels must be in \[0, 2\), got 2"):
        pipeline.sample([2])
    with pytest.raises(ValueError, match=r"no class names; give integers in \[0, 2\)"):
        pipeline.sample(["cat"])


def test_memory_of_sampling_is_bounded_by_the_batch_and_images_are_the_same(pipeline):
    together = pipeline.sample([0, 1, 0, 1, 0], batch=5)
    parts = list(pipeline.sample_batches([0, 1, 0, 1, 0], batch=2))
    assert [len(part.images) for part in parts] == [2, 2, 1]
    for level, codes in enumerate(together.codes):
        assert torch.equal(torch.cat([part.codes[level] for part in parts]), codes)


def test_a_real_image_is_completed_from_its_upper_half(pipeline):
    codes = pipeline.encode(synthetic_images(2))
    given = [code.clone() for code in codes]
    for code in given:
        code[:, code.shape[1] // 2 :] = UNKNOWN
    completed = pipeline.sample([0, 1], seeds=[1, 2], given=given)
    for new, old in zip(completed.codes, codes, strict=True):
        half = new.shape[1] // 2
        assert torch.equal(new[:, :half], old[:, :half])


def test_log_prob_has_one_value_per_code(pipeline):
    nats = pipeline.log_prob(synthetic_images(3), ["cat", "dog", "cat"])
    assert [n.shape for n in nats] == [code.shape for code in pipeline.encode(synthetic_images(3))]
    assert all((n < 0).all() for n in nats)


def test_samples_without_labels_are_spread_evenly_over_the_classes(pipeline):
    samples = pipeline.sample(num_images=5, seed=3)
    assert samples.labels.tolist() == [0, 0, 0, 1, 1]
    assert torch.equal(samples.images, pipeline.sample([0, 0, 0, 1, 1], seed=3).images)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (["cta"], {}, "Unknown class 'cta'; did you mean cat"),
        ("cta", {}, "Unknown class 'cta'; did you mean cat"),
        (None, {}, "This model has classes: name one, such as 'cat', or one per image"),
        (["cat", "dog"], {"num_images": 3}, "got 3 and 2 labels"),
        ("cat", {"temperature": (1, 1, 1, 1)}, "temperature takes one value, or one for each"),
        ([2], {}, r"must be in \[0, 2\), got 2"),
        ([-1], {}, r"must be in \[0, 2\), got -1"),
        (["5"], {}, r"must be in \[0, 2\), got 5"),
        ([0.5], {}, r"Labels .* must be a sequence of integers, got \[0.5\]"),
        ([0], {"seeds": [1.5]}, r"Seeds must be a sequence of integers, got \[1.5\]"),
        ([0], {"seeds": torch.tensor([1.5])}, "Seeds must be a sequence of integers"),
        ([0, 1], {"seeds": [1]}, "got 1 seeds for 2 images"),
        ([], {}, "at least one image"),
        (None, {"num_images": 0}, "at least one image"),
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
