"""NaN and infinite losses stop a run before anything of them is saved."""

from dataclasses import replace

import pytest
import torch
from small_runs import TRAIN, outcome, session, small_run, train, with_training

from vqvae2.data.images import open_images
from vqvae2.data.order import Shuffle, batch_indices
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder
from vqvae2.training import checkpoint
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.stages import train_run


def test_a_nan_loss_stops_before_it_is_saved(tmp_path):
    run = small_run()
    wild = {"learning_rate": 1e30, "warmup_steps": 0, "clip_norm": 1e30}
    examples = r"at step \d \(examples .* all 8 in .*\); the last"
    with pytest.raises(FloatingPointError, match=examples):
        train(tmp_path, with_training(run, None, log_every=7, save_every=3, **wild))
    assert checkpoint.saved_steps(tmp_path / "checkpoints" / "autoencoder") == []


def poison(monkeypatch, *steps: int) -> None:
    """Makes the loss of some steps no number."""
    honest = AutoencoderTask.loss

    def loss(self, module, part, step):
        found = honest(self, module, part, step)
        return replace(found, value=found.value * (float("nan") if step in steps else 1))

    monkeypatch.setattr(AutoencoderTask, "loss", loss)


def test_a_nan_step_stops_at_once_and_names_its_examples(tmp_path, monkeypatch):
    poison(monkeypatch, 4)
    run = small_run()
    task_names = open_images(run.data).train.names
    rare = with_training(run, None, log_every=100, save_every=100, validate_every=100)
    with pytest.raises(
        FloatingPointError, match=r"gradient_norm\.autoencoder = nan at step 5"
    ) as raised:
        train(tmp_path, rare)
    indices = batch_indices(Shuffle(len(task_names)), TRAIN.batch, run.seed, 4)
    assert task_names[int(indices[0])] in str(raised.value)


def test_a_few_nan_steps_can_be_skipped(tmp_path, monkeypatch):
    poison(monkeypatch, 2, 4)
    run = small_run()
    patient = with_training(run, None, max_skipped_steps=2)
    events = train_run(session(tmp_path, patient), lambda stage: stage.group == "autoencoder")
    texts = [event.text for event in events if event.text]
    assert [text.split(" was")[0] for text in texts] == [
        "autoencoder: step 3",
        "autoencoder: step 5",
    ]
    assert all(
        torch.isfinite(weight).all()
        for weight in Pipeline.open(tmp_path).autoencoder.state_dict().values()
    )
    with pytest.raises(FloatingPointError, match="at step 3"):
        train(tmp_path / "once", run)
    train(tmp_path / "once", patient)
    assert outcome(RunFolder(tmp_path / "once")).keys() >= {"model/priors/1/model.safetensors"}
