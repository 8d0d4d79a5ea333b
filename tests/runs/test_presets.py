import pytest
import torch

from vqvae2.priors import Prior
from vqvae2.runs.presets import EXPECTED, PRESETS, find_preset


@pytest.mark.parametrize("name", list(PRESETS))
def test_every_preset_is_complete_and_its_models_can_be_built(name):
    run = PRESETS[name]()
    run.check()
    assert run.preset == name
    assert name in EXPECTED
    with torch.device("meta"):
        run.autoencoder.model.build()
        for level, config in enumerate(run.levels):
            Prior(config.prior, run.domain(level))


def shapes(name: str) -> list[tuple[int, int]]:
    return [grid.shape for grid in PRESETS[name]().grids()]


def test_the_paper_presets_have_the_paper_grids():
    assert shapes("imagenet256") == [(32, 32), (64, 64)]
    assert shapes("ffhq1024") == [(32, 32), (64, 64), (128, 128)]


def test_sonnet_anchor_has_one_8x8_level_of_512_codes():
    run = PRESETS["vqvae-cifar10"]()
    model, training = run.autoencoder.model, run.autoencoder.training
    assert shapes("vqvae-cifar10") == [(8, 8)]
    assert (model.codebooks[0].num_codes, model.codebooks[0].code_size) == (512, 64)
    assert (training.steps, training.batch) == (10_000, 32)


def test_an_unknown_preset_suggests_near_names():
    with pytest.raises(ValueError, match="did you mean cifar10"):
        find_preset("cifar")
    with pytest.raises(ValueError, match="there are: demo, cifar10"):
        find_preset("zzz")
