import inspect
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from builders import small_autoencoder, small_config, synthetic_images
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import vqvae2.autoencoder.codebook
from vqvae2.autoencoder.codebook import (
    SCORES_PER_CHUNK,
    Codebook,
    CodebookConfig,
    Quantized,
    k_means,
    nearest_rows,
)
from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.runs.config import AutoencoderStageConfig
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.loop import new_state
from vqvae2.training.loop import train as train_loop


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nearest_in_numpy(x: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    distances = ((x[:, None].astype(np.float64) - vectors[None]) ** 2).sum(axis=2)
    return distances.argmin(axis=1)


def quantized(x: Tensor, codes: Tensor) -> Quantized:
    zero = torch.zeros(())
    return Quantized(x, codes, zero, zero, x)


@pytest.mark.parametrize("offset", [0.0, 4.0])
@pytest.mark.parametrize(("num_codes", "size"), [(512, 64), (7, 3), (2048, 8)])
def test_nearest_code_equals_a_float64_numpy_search(num_codes, size, offset):
    torch.manual_seed(0)
    x, vectors = torch.randn(1000, size) + offset, torch.randn(num_codes, size) + offset
    codes = nearest_rows(x, vectors).numpy()
    assert (codes == nearest_in_numpy(x.numpy(), vectors.numpy())).all()


def test_nearest_code_is_searched_in_float32_under_autocast():
    torch.manual_seed(0)
    # A common offset makes bfloat16 pick wrong codes for over a third of such vectors.
    x, vectors = torch.randn(2000, 64) + 4, torch.randn(512, 64) + 4
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes = nearest_rows(x, vectors).numpy()
    assert (codes == nearest_in_numpy(x.numpy(), vectors.numpy())).all()


def test_search_is_chunked_and_chunks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    x, vectors = torch.randn(1001, 8), torch.randn(64, 8)
    expected = nearest_rows(x, vectors)
    monkeypatch.setattr(vqvae2.autoencoder.codebook, "SCORES_PER_CHUNK", {"cpu": 64 * 10})
    assert torch.equal(nearest_rows(x, vectors), expected)
    assert SCORES_PER_CHUNK["cpu"] * 4 <= 64 << 20


def test_chunks_of_a_batch_change_neither_codes_nor_codebook():
    codebooks = []
    for chunk in (1 << 14, 16):
        torch.manual_seed(0)
        codebook = Codebook(CodebookConfig(num_codes=9, code_size=5, revive_below=0.5))
        x = torch.randn(6, 5, 4, 4)
        with mock.patch("vqvae2.autoencoder.straight_through.VECTORS_PER_CHUNK", {"cpu": chunk}):
            codebook.start(x, torch.Generator().manual_seed(0))
            for seed in range(3):
                codebook.update(codebook(x + seed), torch.Generator().manual_seed(seed))
        codebooks.append(codebook.state_dict())
    assert all(torch.equal(codebooks[0][name], codebooks[1][name]) for name in codebooks[0])


def test_no_one_hot_of_all_vectors_is_ever_made():
    codebook = Codebook(CodebookConfig(num_codes=512, code_size=4))
    largest = 0

    class SizeRecorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.numel())
            return out

    x = torch.randn(64, 4, 32, 32)
    with SizeRecorder():
        codebook.update(codebook(x), generator())
    assert largest <= max(SCORES_PER_CHUNK["cpu"], x.numel())
    assert "one_hot" not in inspect.getsource(vqvae2.autoencoder.codebook)


def test_codebook_update_matches_numpy():
    config = CodebookConfig(num_codes=5, code_size=3, decay=0.9, revive_below=0.0)
    codebook = Codebook(config).double()
    torch.manual_seed(0)
    counts = np.ones(5)
    sums = codebook.vectors.numpy().copy()
    for _ in range(4):
        x, codes = torch.randn(2, 3, 4, 4).double(), torch.randint(0, 5, (2, 4, 4))
        codebook.update(quantized(x, codes), generator())
        rows = x.movedim(1, -1).reshape(-1, 3).numpy()
        for code in range(5):
            chosen = rows[codes.flatten().numpy() == code]
            counts[code] = 0.9 * counts[code] + 0.1 * len(chosen) * 5 / 32
            sums[code] = 0.9 * sums[code] + 0.1 * chosen.sum(axis=0) * 5 / 32
    np.testing.assert_allclose(codebook.counts.numpy(), counts)
    np.testing.assert_allclose(codebook.vectors.numpy(), sums / counts[:, None])


def test_first_batch_starts_the_codes_from_data():
    torch.manual_seed(0)
    centres = 10 * torch.randn(8, 4)
    x = centres[torch.randint(0, 8, (512,))] + 0.01 * torch.randn(512, 4)
    codebook = Codebook(CodebookConfig(num_codes=32, code_size=4))
    codebook.start(x.view(2, 16, 16, 4).movedim(-1, 1), generator())
    distances = torch.cdist(codebook.vectors, centres).min(dim=1).values
    assert (distances < 0.1).all()
    assert codebook.nearest(x.view(2, 16, 16, 4).movedim(-1, 1)).unique().numel() > 24


def test_fewer_vectors_than_codes_still_start_every_code():
    x = torch.randn(5, 3)
    centres, counts = k_means(x, 12, generator())
    assert centres.shape == (12, 3)
    assert torch.isfinite(centres).all()
    assert counts.mean() == pytest.approx(1)


def test_over_90_percent_of_the_codes_of_every_level_are_used_after_100_steps(factors):
    """With the default recipe; docs/results/cifar10.md has the same for CIFAR-10."""
    torch.manual_seed(0)
    data = open_images(DataConfig(size=32, synthetic_images=1200))
    train = TrainingConfig(steps=100, batch=24, cooldown=0.0)
    model = small_config(factors, num_codes=32)
    stage = AutoencoderStageConfig(
        model=model, training=train, continuous_steps=30, level_dropout=0.25
    )
    task = AutoencoderTask(VQVAE(model), data.train, stage, seed=0)
    state = new_state(task)
    for _ in train_loop(task, state, Accelerator()):
        pass
    unseen = open_images(DataConfig(size=32, synthetic_images=600, seed=1)).train
    for codes in state.average.encode(unseen.batch(range(500)).float() / 255):
        assert codes.unique().numel() > 0.9 * 32


def test_a_restarted_code_stays_in_use():
    torch.manual_seed(0)
    codebook = Codebook(CodebookConfig(num_codes=4, code_size=2, revive_below=0.1))
    x = torch.randn(8, 2, 8, 8)
    codebook.start(x, generator())
    codebook.vectors[0], codebook.sums[0], codebook.counts[0] = 1e6, 0.0, 0.0
    codebook.update(codebook(x), generator())
    restarted = codebook.vectors[0].clone()
    rows = x.movedim(1, -1).reshape(-1, 2)
    assert torch.cdist(restarted[None], rows).min() == 0, "restarts at a vector of the batch"
    assert codebook.counts[0] == 1
    assert torch.equal(codebook.sums[0], restarted), "all of its state is reset"
    for step in range(50):
        codebook.update(codebook(x), generator(step))
        assert codebook.counts[0] > 0.1
    assert (codebook.nearest(x) == 0).any()


def test_without_restarts_an_unused_code_neither_moves_nor_explodes():
    torch.manual_seed(0)
    config = CodebookConfig(num_codes=4, code_size=2, decay=0.5, revive_below=0.0)
    codebook = Codebook(config)
    codebook.vectors[0] = codebook.sums[0] = 100.0
    x = torch.randn(8, 2, 8, 8)
    for step in range(100):
        codebook.update(codebook(x), generator(step))
    torch.testing.assert_close(codebook.vectors[0], torch.full((2,), 100.0))


def test_only_a_training_step_moves_the_codebook(factors, tmp_path):
    from vqvae2.weights import load_autoencoder, save_autoencoder

    model = small_autoencoder(factors, dtype=torch.float32)
    save_autoencoder(tmp_path, model)
    loaded = load_autoencoder(tmp_path)
    assert not loaded.training
    for mode in (model.eval(), model.train(), loaded):
        before = {name: value.clone() for name, value in mode.state_dict().items()}
        mode.decode(mode.encode(synthetic_images(4)))
        result = mode(synthetic_images(4))
        after = mode.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
    model.update_codebooks(result.levels, generator())
    for codebook in model.codebooks:
        name = next(n for n, m in model.named_modules() if m is codebook)
        assert not torch.equal(before[f"{name}.vectors"], codebook.vectors)


def test_gradient_learning_moves_codes_by_the_optimizer():
    torch.manual_seed(0)
    config = CodebookConfig(num_codes=6, code_size=3, learn_by="gradient", revive_below=0.0)
    codebook = Codebook(config)
    assert isinstance(codebook.vectors, nn.Parameter)
    result = codebook(torch.randn(2, 3, 4, 4))
    result.codebook_loss.backward()
    used = result.codes.unique()
    assert (codebook.vectors.grad[used].abs().sum(dim=1) > 0).all()
    before = codebook.vectors.detach().clone()
    codebook.update(result, generator())
    assert torch.equal(codebook.vectors, before)


def test_ema_codebook_has_no_codebook_loss(factors):
    model = small_autoencoder(factors)
    result = model(synthetic_images(4).double())
    assert all(level.codebook_loss == 0 for level in result.levels)
    assert not any("codebooks" in name for name, _ in model.named_parameters())


# torch warns about an object that its own Dynamo creates.
of_dynamo = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@of_dynamo
@pytest.mark.parametrize("gradient", ["straight", "rotate"])
def test_forward_compiles_as_one_graph_without_host_synchronisation(gradient):
    config = CodebookConfig(num_codes=16, code_size=4, gradient=gradient)
    codebook = Codebook(config)
    x = torch.randn(2, 4, 8, 8)
    compiled = torch.compile(codebook, fullgraph=True, backend="aot_eager")
    out, expected = compiled(x), codebook(x)
    assert torch.equal(out.codes, expected.codes)
    torch.testing.assert_close(out.vectors, expected.vectors)


@of_dynamo
def test_autoencoder_forward_compiles_as_one_graph(factors):
    model = small_autoencoder(factors, dtype=torch.float32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out, expected = compiled(synthetic_images(2)), model(synthetic_images(2))
    torch.testing.assert_close(out.images, expected.images)


def test_a_config_differs_by_its_fields_only():
    config = CodebookConfig()
    assert replace(config, num_codes=7) == CodebookConfig(num_codes=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0}, "num_codes must be at least 1, got 0"),
        ({"code_size": -1}, "code_size must be at least 1, got -1"),
        ({"decay": 1.5}, r"decay must be in \[0, 1\), got 1.5"),
        ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"revive_below": 2.0}, r"revive_below must be in \[0, 1\), got 2.0"),
        ({"revive_below": float("nan")}, r"revive_below must be in \[0, 1\), got nan"),
    ],
)
def test_invalid_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CodebookConfig(**options)


@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), k=st.integers(1, 20), d=st.integers(1, 6)
)
@settings(max_examples=50, deadline=None)
def test_no_code_is_nearer_than_the_nearest(seed, n, k, d):
    noise = torch.Generator().manual_seed(seed)
    x, vectors = (torch.randn(m, d, generator=noise).double() for m in (n, k))
    chosen = (x - vectors[nearest_rows(x, vectors)]).square().sum(dim=1)
    best = (x[:, None] - vectors).square().sum(dim=2).min(dim=1).values
    torch.testing.assert_close(chosen, best)
