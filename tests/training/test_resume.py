"""A run that is stopped, killed or damaged ends as if nothing had happened."""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import outcome, session, sharp_run, small_run, train

from vqvae2.data import extraction
from vqvae2.pipeline import Pipeline
from vqvae2.runs.folder import RunFolder
from vqvae2.training import checkpoint
from vqvae2.training.session import Stopped
from vqvae2.training.stages import stages, train_run

RUNS = {"1-level": (small_run((4,)), (5, 8, 17)), "3-levels": (small_run((2, 2, 2)), (5, 8, 17))}
RUNS |= {"2-levels": (small_run(), (5, 8, 17)), "sharp": (sharp_run(), (24, 27))}


@pytest.mark.parametrize(("run", "stops"), RUNS.values(), ids=RUNS)
def test_ten_steps_equal_five_steps_a_stop_and_five_more_bit_for_bit(run, stops, tmp_path):
    whole = outcome(train(tmp_path / "whole", run))
    for stop_after in stops:
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
from small_runs import sharp_run, train
from vqvae2.data import extraction
extraction.IMAGES_PER_SHARD = 8
train(Path({path!r}), sharp_run())
"""


def has_reached(folder: Path, stage: str) -> bool:
    """Whether a run is in the middle of a stage."""
    if stage == "codes":
        return len(list((folder / "codes").glob("train-*.parquet"))) >= 3
    log = folder / "log" / f"{stage}.jsonl"
    return log.exists() and len(log.read_bytes().splitlines()) >= 6


@pytest.mark.parametrize("stage", [stage.name for stage in stages(sharp_run())])
def test_kill_9_in_the_middle_of_each_stage_then_resuming_ends_bit_equal(
    stage, tmp_path, monkeypatch
):
    monkeypatch.setattr(extraction, "IMAGES_PER_SHARD", 8)
    killed = tmp_path / "killed"
    code = KILLED.format(tests=str(Path(__file__).parent.parent), path=str(killed))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ})
    give_up = time.monotonic() + 120
    while not has_reached(killed, stage):
        assert process.poll() is None, "must be killed before it is done"
        assert time.monotonic() < give_up
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert outcome(train(killed, sharp_run())) == outcome(train(tmp_path / "whole", sharp_run()))


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    whole = outcome(train(tmp_path / "whole", small_run()))
    jumps = itertools.cycle([1e9, -5.0, 4e9, 0.0])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    assert outcome(train(tmp_path / "jumping", small_run())) == whole


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


def test_a_run_reports_that_it_resumes_from_an_older_checkpoint(tmp_path):
    run = small_run()
    whole = outcome(train(tmp_path / "whole", run))
    with pytest.raises(Stopped):
        train(tmp_path / "hurt", run, stop_after=8)
    newest = checkpoint.saved_steps(tmp_path / "hurt" / "checkpoints" / "autoencoder")[-1]
    newest.write_bytes(newest.read_bytes()[:-9])
    folder = RunFolder(tmp_path / "hurt")
    events = train_run(session(folder.path, run))
    texts = [event.text for event in events if event.text]
    assert len(texts) == 1
    assert "resuming from step 5" in texts[0]
    (kept,) = (folder.checkpoints("autoencoder")).glob("*.damaged")
    kept.unlink()
    assert outcome(folder) == whole


def test_a_damaged_best_file_is_replaced_by_the_last_checkpoint(tmp_path):
    run = small_run()
    folder = train(tmp_path, run)
    for path in ("model/priors/1/config.json", "checkpoints/prior1/best.safetensors"):
        (tmp_path / path).unlink()
    events = train_run(session(folder.path, run))
    texts = [event.text for event in events if event.text]
    assert len(texts) == 1
    assert "using the weights of step 10 instead" in texts[0]
    assert len(Pipeline.open(tmp_path).priors) == 2
