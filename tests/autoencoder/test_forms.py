"""The forms in which other people's programs use an autoencoder and a codebook."""

import copy
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from builders import small_autoencoder, synthetic_images

from vqvae2.autoencoder import VQVAE, Codebook, CodebookConfig, VQVAEConfig
from vqvae2.autoencoder.codebook import FORGOTTEN_AFTER
from vqvae2.weights import fingerprint, load_autoencoder


def noise():
    return torch.Generator().manual_seed(0)


def test_numbers_and_configs_make_the_same_models():
    assert Codebook(24, 6, decay=0.9).config == CodebookConfig(
        num_codes=24, code_size=6, decay=0.9
    )
    assert Codebook(CodebookConfig(num_codes=24)).config.num_codes == 24
    model = VQVAE(factors=(2, 4), num_codes=(128, 512), code_size=16, channels=32)
    codebooks = tuple(CodebookConfig(num_codes=n, code_size=16) for n in (128, 512))
    assert model.config == VQVAEConfig(factors=(2, 4), channels=32, codebooks=codebooks)
    assert VQVAE().config == VQVAE(VQVAEConfig()).config == VQVAEConfig()
    with pytest.raises(ValueError, match="num_codes takes one value, or one for each of the 2"):
        VQVAE(num_codes=(1, 2, 3))
    with pytest.raises(ValueError, match="width"):
        VQVAE(width=64)


@pytest.mark.parametrize("sides", [(), (7,), (4, 3), (2, 3, 4)])
@pytest.mark.parametrize("is_last", [False, True])
def test_vectors_of_any_arrangement_get_the_codes_and_updates_of_their_rows(sides, is_last):
    codebook = Codebook(16, 6).double()
    rows = torch.randn(5, *sides, 6, dtype=torch.float64)
    x = (rows if is_last else rows.movedim(-1, 1)).requires_grad_()
    quantized = codebook(x)
    expected = torch.cdist(rows.reshape(-1, 6), codebook.vectors).argmin(dim=1)
    assert quantized.codes.shape == (5, *sides)
    assert torch.equal(quantized.codes.flatten(), expected)
    assert quantized.vectors.shape == x.shape
    embedded = codebook.vectors[quantized.codes]
    shown = quantized.vectors if is_last or not sides else quantized.vectors.movedim(1, -1)
    assert torch.equal(shown, embedded)
    (gradient,) = torch.autograd.grad((quantized.vectors * 3).sum(), x)
    assert torch.equal(gradient, torch.full_like(x, 3))
    flat, arranged = Codebook(16, 6).double(), copy.deepcopy(codebook)
    flat.load_state_dict(codebook.state_dict())
    flat.update(flat(rows.reshape(-1, 6)), noise())
    arranged.update(arranged(x), noise())
    for name, value in flat.state_dict().items():
        assert torch.allclose(value, arranged.state_dict()[name]), name


def test_the_dimension_of_the_vectors_is_found_or_must_be_named():
    codebook = Codebook(16, 6)
    square = torch.randn(2, 6, 6)
    with pytest.raises(ValueError, match="Both sides are 6: give channel_last"):
        codebook(square)
    first, last = codebook(square, channel_last=False), codebook(square, channel_last=True)
    assert torch.equal(first.codes, codebook(square.movedim(1, 2), channel_last=True).codes)
    assert not torch.equal(first.codes, last.codes)
    with pytest.raises(ValueError, match=r"vectors of size 6 takes .* got \(2, 5, 5\)"):
        codebook(torch.randn(2, 5, 5))
    with pytest.raises(ValueError, match="needs vectors of size 6 along dimension -1"):
        codebook(torch.randn(2, 6, 5), channel_last=True)


def test_an_update_needs_no_generator():
    model = small_autoencoder((2, 4), dtype=torch.float32).train()
    before = fingerprint(model)
    output = model(synthetic_images(4))
    model.update_codebooks(output)
    assert fingerprint(model) != before
    model.update_codebooks(output.levels, noise())


def test_a_forgotten_update_is_named_once():
    codebook = Codebook(8, 4)
    x = torch.randn(2, 4, 3, 3)
    for _ in range(FORGOTTEN_AFTER - 1):
        codebook(x)
    with pytest.warns(UserWarning, match=r"model.update_codebooks\(output\)"):
        codebook(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codebook(x)
        updated = Codebook(8, 4)
        for _ in range(2 * FORGOTTEN_AFTER):
            updated.update(updated(x))
        silent = [updated.eval(), Codebook(8, 4, learn_by="gradient")]
        for book in silent:
            for _ in range(2 * FORGOTTEN_AFTER):
                book(x)
        model = small_autoencoder((4,), dtype=torch.float32).train()
        for _ in range(2 * FORGOTTEN_AFTER):
            model(synthetic_images(1), quantize=False)


def test_an_autoencoder_is_saved_and_loaded_by_itself(tmp_path, monkeypatch):
    import huggingface_hub

    model = small_autoencoder((2, 4), dtype=torch.float32)
    model.save_pretrained(tmp_path / "saved")
    loaded = VQVAE.from_pretrained(tmp_path / "saved")
    assert fingerprint(loaded) == fingerprint(model)
    assert not loaded.training
    assert fingerprint(load_autoencoder(tmp_path / "saved")) == fingerprint(model)
    with pytest.raises(ValueError, match=r"config.json is missing"):
        VQVAE.from_pretrained(tmp_path)

    class Hub:
        def create_repo(self, name, private, exist_ok):
            assert (name, private, exist_ok) == ("me/model", True, True)

        def upload_folder(self, repo_id, folder_path):
            assert fingerprint(VQVAE.from_pretrained(folder_path)) == fingerprint(model)
            return SimpleNamespace(commit_url="https://hub/me/model/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert model.push_to_hub("me/model", private=True) == "https://hub/me/model/commit/1"


def test_the_configs_of_other_codebooks_are_kept():
    config = VQVAEConfig(codebooks=(CodebookConfig(decay=0.5),))
    assert replace(config, factors=(4,)).codebooks == (CodebookConfig(decay=0.5),)
