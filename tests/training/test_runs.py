import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders import FACTORS, make_folder
from small_runs import TRAIN, outcome, session, small_run, train, with_training

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.configuration import differences, from_dict, to_dict
from vqvae2.data.config import DataConfig
from vqvae2.data.images import open_images
from vqvae2.data.order import Shuffle, batch_indices
from vqvae2.files import read_json, write_bytes
from vqvae2.pipeline import Pipeline
from vqvae2.priors import PixelCNNPPConfig
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import PRESETS
from vqvae2.training import checkpoint
from vqvae2.training.autoencoder import AutoencoderTask
from vqvae2.training.session import Stopped
from vqvae2.training.stages import train as train_stages


@pytest.mark.parametrize("factors", FACTORS, ids=["1-level", "2-levels", "3-levels"])
def test_ten_steps_equal_five_steps_a_stop_and_five_more_bit_for_bit(factors, tmp_path):
    run = small_run(factors)
    whole = outcome(train(tmp_path / "whole", run))
    for stop_after in (5, 8, 17):
        with pytest.raises(Stopped):
            train(tmp_path / f"{stop_after}", run, stop_after)
        parts = outcome(train(tmp_path / f"{stop_after}", run))
        same = {name for name in whole if parts.get(name) == whole[name]}
        # A stop between two saves leaves one more state; the last one is what counts.
        last = {name for name in whole if "step-" not in name or "step-00000010" in name}
        assert last - same == set()


KILLED = """
import sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
from small_runs import TRAIN, outcome, session, small_run, train, with_training
train(Path({path!r}), small_run())
"""


@pytest.mark.parametrize("stage", ["autoencoder", "prior0", "prior1"])
def test_kill_9_in_the_middle_of_each_stage_then_the_same_again_ends_bit_equal(stage, tmp_path):
    code = KILLED.format(tests=str(Path(__file__).parent.parent), path=str(tmp_path / "killed"))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    log = tmp_path / "killed" / "log" / f"{stage}.jsonl"
    give_up = time.monotonic() + 120
    while not (log.exists() and len(log.read_bytes().splitlines()) >= 6):
        assert process.poll() is None, "must be killed before it is done"
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed = outcome(train(tmp_path / "killed", small_run()))
    assert killed == outcome(train(tmp_path / "whole", small_run()))


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    whole = outcome(train(tmp_path / "whole", small_run()))
    jumps = itertools.cycle([1e9, -5.0, 4e9, 0.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert outcome(train(tmp_path / "jumping", small_run())) == whole


def test_order_and_noise_are_functions_of_seed_and_step():
    run = small_run()
    dataset = open_images(run.data).train
    from vqvae2.autoencoder.vqvae import VQVAE

    tasks = [
        AutoencoderTask(VQVAE(run.autoencoder.model), dataset, run.autoencoder, seed)
        for seed in (0, 0, 1)
    ]
    for _ in range(3):
        tasks[0].batch(2)
    (a, keep_a), (b, keep_b), (c, _) = (task.batch(7)[0] for task in tasks)
    assert torch.equal(a, b)
    assert torch.equal(keep_a, keep_b)
    assert not torch.equal(a, c)


def test_level_dropout_blanks_an_exact_share_and_never_the_coarsest():
    run = small_run((2, 2, 2))
    from vqvae2.autoencoder.vqvae import VQVAE

    stage = replace(run.autoencoder, level_dropout=0.25)
    task = AutoencoderTask(VQVAE(stage.model), open_images(run.data).train, stage, 0)
    counts = torch.zeros(3)
    for step in range(200):
        keep = task.visible_levels(step)
        assert int((~keep.all(dim=1)).sum()) == 2
        assert keep[:, 0].all()
        assert (keep[:, 1] | ~keep[:, 2]).all(), "coarse levels stay before finer ones"
        counts += keep.sum(dim=0)
    assert abs(counts[1] / 1600 - 0.875) < 0.03


def test_every_write_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    run = small_run()
    real, writes = os.fsync, [0]

    def fills_up(file):
        writes[0] += 1
        if writes[0] > 9:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path / "full", run)
    monkeypatch.setattr(os, "fsync", real)
    assert outcome(train(tmp_path / "full", run)) == outcome(train(tmp_path / "whole", run))


def test_nothing_is_read_through_pickle():
    package = Path(__file__).parent.parent.parent / "vqvae2"
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.load(" not in text
        assert "allow_pickle" not in text


FLIPS = {
    "flip in a tensor": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "flip in the digest's name": lambda data: data.replace(b"digest", b"digesu"),
    "flip in the step": lambda data: data.replace(rb"\"step\": 3", rb"\"step\": 1"),
    "flip in a note": lambda data: data.replace(b"1.0", b"1.4"),
    "cut": lambda data: data[:-7],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", FLIPS)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(damage, tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"x": torch.full((100,), float(step))}, {"best": 1.0})
    newest = checkpoint.saved_steps(tmp_path)[-1]
    damaged = FLIPS[damage](newest.read_bytes())
    assert damaged != newest.read_bytes()
    newest.write_bytes(damaged)
    found, problems = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 2
    assert found.tensors["x"][0] == 2
    assert len(problems) == 1
    assert "damaged" in problems[newest]


def test_a_run_says_that_it_goes_on_from_an_older_checkpoint(tmp_path):
    run = small_run()
    whole = outcome(train(tmp_path / "whole", run))
    with pytest.raises(Stopped):
        train(tmp_path / "hurt", run, stop_after=8)
    newest = checkpoint.saved_steps(tmp_path / "hurt" / "checkpoints" / "autoencoder")[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    folder = RunFolder(tmp_path / "hurt")
    events = train_stages(session(folder.path, run))
    texts = [event.text for event in events if event.text]
    assert len(texts) == 1
    assert "resuming from step 5" in texts[0]
    (kept,) = (folder.checkpoints("autoencoder")).glob("*.damaged")
    kept.unlink()
    assert outcome(folder) == whole


def test_a_prior_refuses_another_autoencoder(tmp_path):
    folder = train(tmp_path, small_run())
    pipeline = Pipeline.open(tmp_path)
    pipeline.autoencoder.codebooks[0].vectors += 1
    from vqvae2.weights import save_autoencoder

    save_autoencoder(folder.model / "autoencoder", pipeline.autoencoder)
    with pytest.raises(ValueError, match="was trained on the codes of"):
        Pipeline.open(tmp_path)


def test_a_changed_config_is_refused_with_the_difference(tmp_path):
    run = small_run()
    with pytest.raises(Stopped):
        train(tmp_path, run, stop_after=3)
    with pytest.raises(ValueError, match="seed: 0 before, 7 now"):
        train(tmp_path, replace(run, seed=7))
    # What nothing depends on yet may change.
    train(tmp_path, with_training(run, 0, batch=4))
    with pytest.raises(ValueError, match=r"levels.0.training.batch: 4 before, 8 now"):
        train(tmp_path, run)


def test_other_images_than_it_was_begun_with_are_refused(tmp_path):

    data = make_folder(tmp_path / "data", count=40)
    run = replace(small_run(), data=DataConfig(source=str(data), size=16), num_classes=2)
    with pytest.raises(Stopped):
        train(tmp_path / "run", run, stop_after=3)
    (data / "class0").rename(data / "class2")
    with pytest.raises(ValueError, match="The images are not those"):
        train(tmp_path / "run", run)
    (data / "class2").rename(data / "class0")
    data.rename(tmp_path / "moved")
    moved = replace(run, data=replace(run.data, source=str(tmp_path / "moved")))
    train(tmp_path / "run", moved)


def test_what_would_fail_in_a_later_stage_is_told_before_the_first(tmp_path):
    run, five_scales = small_run(), PixelCNNPPConfig(num_scales=5)
    later = [
        with_training(run, 1, batch=65),
        with_training(run, 1, log_every=0),
        replace(run, levels=(run.levels[0], replace(run.levels[1], prior=five_scales))),
    ]
    for wrong, message in zip(later, ["batch of 65", "log_every", "sides that are"], strict=True):
        with pytest.raises(ValueError, match=message):
            train(tmp_path / "run", wrong)
    train(tmp_path / "run", run)


def test_a_damaged_best_file_is_replaced_by_the_last_state(tmp_path):
    run = small_run()
    folder = train(tmp_path, run)
    for path in ("model/priors/1/config.json", "checkpoints/prior1/best.safetensors"):
        (tmp_path / path).unlink()
    events = train_stages(session(folder.path, run))
    texts = [event.text for event in events if event.text]
    assert len(texts) == 1
    assert "using the weights of step 10 instead" in texts[0]
    assert len(Pipeline.open(tmp_path).priors) == 2


def test_a_state_of_another_version_is_refused_and_kept(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})
    monkeypatch.setattr(checkpoint, "VERSION", 4)
    with pytest.raises(ValueError, match="version 4, got vqvae2-state version 3"):
        checkpoint.latest(tmp_path)
    assert len(checkpoint.saved_steps(tmp_path)) == 1


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_run_survives_its_json(name, tmp_path):
    run = PRESETS[name]()
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(run)))) == run


def test_unknown_fields_and_wrong_types_are_named():
    with pytest.raises(ValueError, match="does not have: colour"):
        from_dict(CodebookConfig, {"colour": 1})
    with pytest.raises(ValueError, match=r"config.num_codes must be int, got 'many'"):
        from_dict(CodebookConfig, {"num_codes": "many"})
    with pytest.raises(ValueError, match=r"config.learn_by must be"):
        from_dict(CodebookConfig, {"learn_by": "magic"})
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a.1.b: 2 before, 3 now"]


def test_every_file_has_a_name_and_a_version(tmp_path):
    folder = train(tmp_path, small_run())
    for path in folder.path.rglob("*.json"):
        document = json.loads(path.read_text())
        assert document["format"].startswith("vqvae2-")
        assert document["version"] in (1, 2, 3)
    newer = json.loads((tmp_path / "config.json").read_text()) | {"version": 4}
    (tmp_path / "config.json").write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="version 3, got vqvae2-run version 4"):
        folder.read()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_json(tmp_path / "config.json", "vqvae2-run", 3)


def test_accumulated_parts_learn_what_the_whole_batch_learns(tmp_path):
    run = small_run()
    run = replace(run, autoencoder=replace(run.autoencoder, level_dropout=0.0))
    parts = with_training(run, None, accumulate=4)
    for name, each in [("whole", run), ("parts", parts)]:
        only = lambda stage: stage.group == "autoencoder"  # noqa: E731
        for _ in train_stages(session(tmp_path / name, each), only):
            pass
    a, b = (Pipeline.open(tmp_path / name).autoencoder.state_dict() for name in ("whole", "parts"))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=2e-3, rtol=2e-2)


def test_fewer_images_than_a_batch_says_what_to_do(tmp_path):
    run = small_run()
    with pytest.raises(ValueError, match="at least one batch of 80 images, got 64"):
        train(tmp_path, with_training(run, None, batch=80))


def test_a_loss_that_is_no_number_stops_before_it_is_saved(tmp_path):
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


def test_a_step_that_is_no_number_stops_at_once_and_names_its_examples(tmp_path, monkeypatch):
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


def test_a_few_steps_that_are_no_number_can_be_left_out(tmp_path, monkeypatch):
    poison(monkeypatch, 2, 4)
    run = small_run()
    patient = with_training(run, None, max_skipped_steps=2)
    events = train_stages(session(tmp_path, patient), lambda stage: stage.group == "autoencoder")
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


def test_two_trainings_of_one_folder_are_one_clear_line(tmp_path):
    folder = RunFolder(tmp_path)
    with folder.lock(), pytest.raises(ValueError, match="is being trained by another process"):
        train(tmp_path, small_run())
    with folder.lock():
        pass
