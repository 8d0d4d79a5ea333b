"""A change that should not alter results leaves these files alone.

`python tests/training/test_golden.py` writes them anew; say so in the changelog.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from builders import small_config

from vqvae2.autoencoder.vqvae import VQVAE
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.priors import Prior
from vqvae2.randomness import seeded_weights
from vqvae2.runs.config import AutoencoderStageConfig
from vqvae2.runs.presets import PRESETS
from vqvae2.runs.training import TrainingConfig
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.loop import new_state, train

GOLDEN = Path(__file__).parent.parent / "golden"


def loss_curve() -> list[float]:
    """Training error of 50 steps of stage 1 with every part of the recipe at work."""
    data = open_images(DataConfig(size=16, synthetic_images=400))
    training = TrainingConfig(steps=50, batch=16, warmup_steps=5)
    config = small_config((2, 4))
    config = replace(config, codebooks=(replace(config.codebooks[0], revive_below=0.3),))
    stage = AutoencoderStageConfig(
        model=config, training=training, continuous_steps=10, level_dropout=0.25
    )
    with seeded_weights(0, "autoencoder"):
        model = VQVAE(config)
    task = AutoencoderTask(model, data.train, stage, seed=0)
    state = new_state(task)
    return [p.metrics["mse"].item() for p in train(task, state, Accelerator(cpu=True))]


def state_keys() -> dict[str, list[str]]:
    """Names and shapes of all weights of Transformers (demo) and gated PixelCNNs (cifar10)."""
    models: dict[str, torch.nn.Module] = {}
    for preset, run in [("demo", PRESETS["demo"]()), ("cifar10", PRESETS["cifar10"]("images"))]:
        with torch.device("meta"):
            models[f"{preset}.autoencoder"] = VQVAE(run.autoencoder.model)
            for level, config in enumerate(run.levels):
                models[f"{preset}.prior{level}"] = Prior(config.prior, run.domain(level))
    return {
        name: [f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items()]
        for name, model in models.items()
    }


def test_the_loss_curve_of_50_steps_is_as_it_was():
    golden = json.loads((GOLDEN / "loss_curve.json").read_text())
    torch.testing.assert_close(torch.tensor(loss_curve()), torch.tensor(golden), rtol=0.02, atol=0)


def test_the_names_and_shapes_of_all_weights_are_as_they_were():
    assert state_keys() == json.loads((GOLDEN / "state_keys.json").read_text())


if __name__ == "__main__":
    for name, value in [("loss_curve", loss_curve()), ("state_keys", state_keys())]:
        (GOLDEN / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n")
    sys.exit()
