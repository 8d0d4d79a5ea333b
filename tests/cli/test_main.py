"""Help, options and errors of all commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import make_folder
from commands import TINY, error_of, train_command

from vqvae2.cli.main import COMMANDS, run

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_command(arguments, capsys):
    assert run(arguments) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)


def test_the_version_is_printed(capsys):
    assert run(["--version"]) == 0
    assert re.fullmatch(r"vqvae2 \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_options_of_a_command_change_only_on_purpose(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run([command, "--help"])
    assert stop.value.code == 0
    options = sorted(set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"})
    frozen = json.loads((GOLDEN / "options.json").read_text())
    assert options == frozen[command]


def test_output_may_be_closed_by_its_reader():
    command = f"{sys.executable} -m vqvae2 --help | true"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert process.stderr == ""


def test_an_unknown_command_names_a_near_one(capsys):
    assert "did you mean train?" in error_of(capsys, "trian")


def test_options_that_cannot_be_read_are_one_line(trained, capsys):
    assert "nonsense" in error_of(capsys, "sample", trained, "--nonsense", "1")
    assert "many" in error_of(capsys, "sample", trained, "--count", "many")
    assert "--help` lists the options" in error_of(capsys, "sample")


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert "not a run folder" in error_of(capsys, "evaluate", tmp_path)
    assert "does not contain a trained model" in error_of(capsys, "sample", tmp_path)


def test_an_unknown_device_is_one_line(trained, capsys):
    assert "Cannot use --device" in error_of(capsys, "evaluate", trained, "--device", "foo")


def test_a_damaged_model_is_one_line(trained, tmp_path, capsys):
    copy = shutil.copytree(trained, tmp_path / "copy")
    weights = copy / "model" / "priors" / "0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "does not contain this model's weights" in error_of(capsys, "sample", copy)
    weights.unlink()
    assert "model.safetensors" in error_of(capsys, "sample", copy)


def test_a_full_disk_is_one_line(tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    data = make_folder(tmp_path / "data", count=40)
    monkeypatch.setattr(os, "fsync", fail)
    command = train_command(data, tmp_path / "run")
    assert "free some space and repeat" in error_of(capsys, *command, *TINY)


def test_a_lost_process_is_one_line(trained, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:6071")

    monkeypatch.setattr("vqvae2.cli.doctor.diagnose", fail)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start all processes again" in error_of(capsys, "doctor", trained)
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError):
        run(["doctor", str(trained)])


def test_presets_are_listed_with_their_sizes(capsys):
    assert run(["presets"]) == 0
    assert "imagenet256" in capsys.readouterr().out


def test_doctor_and_report_describe_a_run(trained, capsys):
    assert run(["doctor", str(trained)]) == 0
    assert "autoencoder is done" in capsys.readouterr().out
    assert run(["report", str(trained)]) == 0
    assert (trained / "report.html").stat().st_size > 10_000
