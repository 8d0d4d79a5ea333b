"""One run in three states, and its reports; trained once for all tests of the report."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from pages import page_of
from small_runs import session

from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.evaluation.validation import evaluate
from vqvae2.priors import GatedPixelCNNConfig
from vqvae2.runs.config import LevelConfig, RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import demo
from vqvae2.training.stages import prepare, train_run


def tiny() -> RunConfig:
    config = demo()
    training = replace(
        config.autoencoder.training, steps=4, batch=8, validate_every=2, save_every=2,
        validation_examples=16, log_every=1,
    )  # fmt: skip
    prior = GatedPixelCNNConfig(
        channels=16, residual_channels=16, num_layers=2, num_output_blocks=1, kernel=3
    )
    codebook = replace(config.autoencoder.model.codebooks[0], num_codes=16, code_size=8)
    model = replace(
        config.autoencoder.model, channels=16, residual_channels=8, codebooks=(codebook,)
    )
    return replace(
        config,
        data=replace(config.data, size=16, synthetic_images=240),
        autoencoder=replace(
            config.autoencoder, model=model, training=training, continuous_steps=2
        ),
        levels=(
            LevelConfig(prior=replace(prior, attention_every=2), training=training),
            LevelConfig(prior=replace(prior, num_conditioning_blocks=1), training=training),
        ),
    )


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    """The run before training, with an autoencoder alone, and complete with an evaluation."""
    root = tmp_path_factory.mktemp("runs")
    training = session(root / "complete", tiny())
    prepare(training)
    shutil.copytree(root / "complete", root / "begun")
    list(train_run(training, lambda stage: stage.group == "autoencoder"))
    shutil.copytree(root / "complete", root / "autoencoder")
    list(train_run(training))
    evaluate(Evaluation.open(training.folder), limit=24)
    return {name: RunFolder(root / name) for name in ("begun", "autoencoder", "complete")}


@pytest.fixture(scope="session")
def pages(runs: dict[str, RunFolder]) -> dict[str, str]:
    """The report of each of the runs."""
    return {name: page_of(folder) for name, folder in runs.items()}


@pytest.fixture
def folder(runs: dict[str, RunFolder], tmp_path: Path) -> RunFolder:
    """A copy of the complete run, which a test may change."""
    return RunFolder(Path(shutil.copytree(runs["complete"].path, tmp_path / "copy")))
