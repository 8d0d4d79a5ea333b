"""One precision for training, likelihoods and sampling."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from builders import small_autoencoder, synthetic_images
from prior_cases import CONFIGS, inputs, make

from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.precision import (
    bfloat16_copy,
    computing,
    exactly,
    float32_products,
    in_bfloat16,
    resolve,
)
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior

CPU = torch.device("cpu")


def new_pipeline() -> Pipeline:
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    coarse, fine = autoencoder.config.grids(16, 16)
    config = GatedPixelCNNConfig(channels=32, residual_channels=32, num_layers=2, kernel=3)
    torch.manual_seed(0)
    priors = [
        Prior(config, Domain(grid=coarse)).eval(),
        Prior(config, Domain(grid=fine, coarser=(coarse,))).eval(),
    ]
    return Pipeline(autoencoder, PipelineConfig(image_size=16), priors)


def test_auto_is_bfloat16_only_where_a_gpu_computes_in_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert resolve("auto", CPU) == resolve("auto", torch.device("cuda")) == "float32"
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert resolve("auto", torch.device("cuda")) == "bfloat16"
    assert resolve("tf32", torch.device("cuda")) == "tf32"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"precision must be one of auto, .* got 'bf16'"):
        resolve("bf16", CPU)


def test_on_a_cpu_the_settings_of_gpus_are_neither_read_nor_changed(monkeypatch):
    """torch raises where its older functions are called after its newer ones."""

    def refuse(*arguments: object) -> None:
        raise RuntimeError("mix of the legacy and new APIs")

    monkeypatch.setattr(torch, "get_float32_matmul_precision", refuse)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", refuse)
    with computing("tf32", CPU), exactly(CPU):
        pass


def test_only_tf32_rounds_the_matrix_products_that_autocast_leaves(monkeypatch):
    """Among them is the search for codes."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for precision in ("float32", "bfloat16", "float16", "auto"):
        with float32_products(precision, torch.device("cuda")):
            assert torch.get_float32_matmul_precision() == "highest"


def test_a_bfloat16_copy_is_made_once_and_follows_the_weights():
    prior = make("1-level", "plain", torch.float32)
    copied = bfloat16_copy(prior)
    with torch.no_grad():
        prior.values.vectors.weight.fill_(3)
    assert bfloat16_copy(prior) is copied
    assert bool((copied.values.vectors.weight == 3).all())
    reference = weakref.ref(copied)
    del copied, prior
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize(("precision", "rounded"), [("float32", False), ("tf32", True)])
def test_matrix_products_and_convolutions_of_a_gpu_round_alike(precision, rounded):
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with float32_products(precision, torch.device("cuda")):
        assert torch.backends.cudnn.allow_tf32 is rounded
        assert torch.get_float32_matmul_precision() == ("high" if rounded else "highest")
    assert before == (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision())


@pytest.mark.parametrize("domain", ["2-levels", "softmax", "mixture"])
@pytest.mark.parametrize("architecture", list(CONFIGS))
@torch.no_grad()
def test_steps_with_bfloat16_weights_are_near_the_float32_distribution(architecture, domain):
    prior = make(domain, architecture, torch.float32)
    values, labels, coarser = inputs(prior)
    outputs = []
    for model in (prior, in_bfloat16(prior)):
        cache = model.new_cache(model.embed_context(labels, coarser), 3)
        previous = torch.zeros(3, dtype=torch.int64)
        steps = []
        for value in values.flatten(1).T:
            steps.append(model.step(cache, previous).float().softmax(dim=1))
            previous = value
        outputs.append(torch.stack(steps))
    assert (outputs[0] - outputs[1]).abs().max() < 0.05
    assert next(prior.parameters()).dtype == torch.float32


@pytest.mark.parametrize("batch", [5, 16])
def test_an_image_sampled_in_bfloat16_does_not_depend_on_the_others(batch):
    pipeline = replace(new_pipeline(), precision="bfloat16")
    seeds = list(range(12))
    together = pipeline.sample([0] * 12, seeds, batch=batch)
    for order in ([3], [11, 2, 3], seeds[::-1]):
        some = pipeline.sample([0] * len(order), order, batch=batch)
        for maps, expected in zip(some.codes, together.codes, strict=True):
            assert torch.equal(maps, expected[order])


def test_likelihoods_in_bfloat16_are_near_those_in_float32():
    pipeline, images = new_pipeline(), synthetic_images(4)
    exact = pipeline.log_prob(images, [0] * 4)
    rounded = replace(pipeline, precision="bfloat16").log_prob(images, [0] * 4)
    for a, b in zip(exact, rounded, strict=True):
        assert a.mean().item() == pytest.approx(b.mean().item(), rel=1e-2)
        assert not torch.equal(a, b)


def test_codes_of_images_do_not_depend_on_the_precision():
    pipeline, images = new_pipeline(), synthetic_images(4)
    codes = pipeline.encode(images)
    others = replace(pipeline, precision="bfloat16").encode(images)
    assert all(torch.equal(a, b) for a, b in zip(codes, others, strict=True))
