"""What runs outside of training on a simulated GPU: the same results, no blocking copies."""

from collections.abc import Iterator

import pytest
import torch
from builders import small_autoencoder, synthetic_images
from simulated_cuda import SimulatedCuda
from small_runs import small_run
from torch import Tensor

from vqvae2.autoencoder import VQVAE
from vqvae2.code_grid import CodeGrid
from vqvae2.data import extraction
from vqvae2.data.codes import CodesInfo, CodesInMemory
from vqvae2.data.extraction import describe_codes, extract_shard
from vqvae2.data.images import open_images
from vqvae2.metrics.distortion import measure_distortion
from vqvae2.metrics.likelihood import nats_per_code
from vqvae2.pipeline import Pipeline, PipelineConfig
from vqvae2.precision import float32_products
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior

IMAGES = synthetic_images(4)


def new_pipeline() -> Pipeline:
    autoencoder = small_autoencoder((2, 4), dtype=torch.float32)
    coarse, fine = autoencoder.config.grids(16, 16)
    config = GatedPixelCNNConfig(channels=8, residual_channels=8, num_layers=2, kernel=3)
    torch.manual_seed(0)
    priors = [
        Prior(config, Domain(grid=coarse, num_classes=2)).eval(),
        Prior(config, Domain(grid=fine, coarser=(coarse,), num_classes=2)).eval(),
    ]
    return Pipeline(autoencoder, PipelineConfig(image_size=16), priors)


@pytest.fixture
def cuda() -> Iterator[SimulatedCuda]:
    with SimulatedCuda() as simulation:
        yield simulation


def on_host(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.cpu() for tensor in tensors]


def test_encode_decode_and_reconstruct_never_wait(cuda):
    pipeline = new_pipeline()
    codes, images = pipeline.encode(IMAGES), pipeline.reconstruct(IMAGES)
    blank = pipeline.decode(codes, [0])
    pipeline.to("cuda")
    cuda.reset()
    results = [*pipeline.encode(IMAGES), pipeline.reconstruct(IMAGES), pipeline.decode(codes, [0])]
    cuda.counts.require_asynchronous()
    torch.testing.assert_close(on_host(results), [*codes, images, blank])


def test_codes_of_images_are_exact_whatever_the_precision_of_the_process(cuda, monkeypatch):
    pipeline, seen = new_pipeline().to("cuda"), []
    encode, decode = pipeline.autoencoder.encode, pipeline.autoencoder.decode

    def settings() -> tuple[str, bool]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    monkeypatch.setattr(
        pipeline.autoencoder, "encode", lambda *a: (seen.append(settings()), encode(*a))[1]
    )
    monkeypatch.setattr(
        pipeline.autoencoder, "decode", lambda *a: (seen.append(settings()), decode(*a))[1]
    )
    with float32_products("tf32", torch.device("cuda")):
        pipeline.reconstruct(IMAGES)
    assert seen == [("highest", False)] * 2


def test_log_prob_never_waits(cuda):
    pipeline = new_pipeline()
    expected = pipeline.log_prob(IMAGES, [0, 1, 0, 1])
    pipeline.to("cuda")
    cuda.reset()
    nats = pipeline.log_prob(IMAGES, [0, 1, 0, 1])
    cuda.counts.require_asynchronous()
    torch.testing.assert_close(on_host(nats), expected)


def test_samples_are_those_of_the_cpu(cuda):
    pipeline = new_pipeline()
    expected = pipeline.sample([0, 1, 1], [5, 6, 7], batch=2)
    pipeline.to("cuda")
    cuda.reset()
    samples = pipeline.sample([0, 1, 1], [5, 6, 7], batch=2)
    assert not cuda.counts.blocking_copies
    assert not cuda.counts.mismatches
    assert all(torch.equal(a.cpu(), b) for a, b in zip(samples.codes, expected.codes, strict=True))
    torch.testing.assert_close(samples.images.cpu(), expected.images)


def test_extraction_reads_the_codes_of_a_batch_when_the_next_one_is_computed(
    cuda, tmp_path, monkeypatch
):
    monkeypatch.setattr(extraction, "inference_batch_size", lambda size: 16)
    dataset = open_images(small_run().data).train
    model = small_autoencoder((2, 4), dtype=torch.float32)
    info = describe_codes(model, dataset)
    list(extract_shard(model, dataset, info, tmp_path / "cpu.parquet", 0))
    model.to("cuda")
    cuda.reset()
    list(extract_shard(model, dataset, info, tmp_path / "cuda.parquet", 0))
    cuda.counts.require_asynchronous()
    assert cuda.counts.waits > 0
    assert (tmp_path / "cuda.parquet").read_bytes() == (tmp_path / "cpu.parquet").read_bytes()


def test_validation_of_a_prior_never_waits_within_a_batch(cuda):
    prior = new_pipeline().priors[0]
    grids = (CodeGrid(prior.domain.grid.num_codes, *prior.domain.grid.shape),)
    maps = [torch.randint(grids[0].num_codes, (20, *grids[0].shape)).numpy()]
    info = CodesInfo(autoencoder="", dataset="", grids=grids, num_images=20)
    codes = CodesInMemory(info, maps, torch.arange(20) % 2)
    expected = nats_per_code(prior, codes, batch=8)
    prior.to("cuda")
    cuda.reset()
    assert nats_per_code(prior, codes, batch=8) == pytest.approx(expected, rel=1e-6)
    cuda.counts.require_asynchronous()


def test_evaluation_of_reconstructions_copies_nothing_blocking(cuda):
    dataset = open_images(small_run().data).train
    model = small_autoencoder((2, 4), dtype=torch.float32)
    expected = measure_distortion(model, dataset.batches(torch.arange(20)))
    model.to("cuda")
    assert isinstance(model, VQVAE)
    cuda.reset()
    measured = measure_distortion(model, dataset.batches(torch.arange(20), "cuda"))
    assert not cuda.counts.blocking_copies
    assert not cuda.counts.mismatches
    assert measured.values["mse"] == pytest.approx(expected.values["mse"], rel=1e-5)
    assert measured.per_level["codes_used"] == expected.per_level["codes_used"]
