"""Help, options and errors of all commands."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from builders import make_folder
from commands import TINY, error_of, train_command

from vqvae2.cli.main import COMMANDS, run
from vqvae2.cli.options import sentence_of

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
    assert run([command, "--help"]) == 0
    options = sorted(set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"})
    frozen = json.loads((GOLDEN / "options.json").read_text())
    assert options == frozen[command]


def test_output_may_be_closed_by_its_reader():
    command = f"{sys.executable} -m vqvae2 --help | true"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert process.stderr == ""


def test_help_of_a_command_may_be_closed_by_its_reader():
    command = f"{sys.executable} -m vqvae2 help train | head -1"
    process = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert process.stderr == ""
    assert "usage: vqvae2 train" in process.stdout


def test_help_of_a_command_is_its_help(capsys):
    assert run(["help", "report"]) == 0
    text = capsys.readouterr().out
    assert run(["report", "--help"]) == 0
    assert capsys.readouterr().out == text
    assert "did you mean report?" in error_of(capsys, "help", "reprot")


def test_help_wraps_between_words(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "44")
    assert run(["help"]) == 0
    text = capsys.readouterr().out
    assert all(len(line) <= 44 for line in text.splitlines())
    assert " ".join(text.split()).count("train on built-in images in minutes, and write") == 1


def test_ctrl_c_while_a_command_is_imported_is_quiet():
    code = (
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'vqvae2.cli.doctor': signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from vqvae2.cli.main import main\n"
        "main(['doctor', 'x'])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert process.stderr == process.stdout == ""
    assert process.returncode == -signal.SIGINT, "130 in a shell"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_and_options(shell, tmp_path, capsys):
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    if shell == "zsh":
        assert "bashcompinit" in script
        return
    for line, expected in (("vqvae2 tr", "train"), ("vqvae2 report --op", "--open")):
        words = line.split()
        code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _vqvae2; "
        process = subprocess.run(
            ["bash", "-c", f'{code} echo "${{COMPREPLY[@]}}"'],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert process.stdout.split() == [expected]


def test_fish_gets_a_line_per_option(capsys):
    assert run(["completion", "fish"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "complete -c vqvae2 -n '__fish_seen_subcommand_from report' -l open" in lines


def test_an_unknown_command_names_a_near_one(capsys):
    assert "did you mean train?" in error_of(capsys, "trian")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "sample RUN --temprature 0.9",
            "Unknown option --temprature; did you mean --temperature?",
        ),
        ("sample RUN --nonsense 1", "Unknown option --nonsense."),
        ("sample RUN extra", "Unexpected argument 'extra'."),
        ("sample RUN --count many", "--count must be a whole number, got 'many'."),
        ("sample RUN --temperature hot", "--temperature cannot be 'hot'."),
        ("sample", "Missing: RUN. `vqvae2 sample --help` lists the options."),
        ("train --data DATA stray", "Unexpected argument 'stray'."),
        (
            "train --preset demo --batch-size 8",
            "Unknown option --batch-size; did you mean --autoencoder.training.batch or "
            "--levels.0.training.batch?",
        ),
        (
            "train --preset demo --autoencoder.training.stepz 8",
            "did you mean --autoencoder.training.steps?",
        ),
        (
            "train --preset demo --autoencoder.training.steps many",
            "--autoencoder.training.steps must be a whole number, got 'many'.",
        ),
        ("train --tracker x", "must be one of none, tensorboard, wandb, mlflow, got 'x'."),
        ("doctor RUN --device cpu", "Unknown option --device."),
        ("completion", "Missing"),
    ],
)
def test_arguments_that_cannot_be_read_are_one_plain_sentence(trained, capsys, arguments, message):
    words = [str(trained) if word == "RUN" else word for word in arguments.split()]
    assert message in error_of(capsys, *words)


BOXES = """\
╭─ Unrecognized options ─────────────────╮
│ Unrecognized options: --temprature, 0.9 │
│ ────────────────────────────────────── │
│ Perhaps you meant:                     │
│     --temperature [FLOAT [FLOAT ...]]  │
│         (default: )                    │
│ ────────────────────────────────────── │
│ For full helptext, run sample --help   │
╰────────────────────────────────────────╯
"""

HYPHENS = """\
 Unrecognized options
 ---------------------------------------
  Unrecognized options: --temprature, 0.9
  --------------------------------------
  Perhaps you meant:
      --temperature [FLOAT [FLOAT ...]]
          (default: )
  --------------------------------------
  For full helptext, run sample --help

"""


@pytest.mark.parametrize("frame", [BOXES, HYPHENS], ids=["utf-8", "other encodings"])
def test_the_parser_is_understood_in_every_encoding_of_the_output(frame):
    expected = "Unknown option --temprature; did you mean --temperature?"
    assert sentence_of(frame) == expected


def test_a_folder_that_is_no_run_is_one_line(tmp_path, capsys):
    assert "not a run folder" in error_of(capsys, "evaluate", tmp_path)
    assert "does not contain a trained model" in error_of(capsys, "sample", tmp_path)


def test_an_unknown_device_is_one_line(trained, capsys):
    line = error_of(capsys, "evaluate", trained, "--device", "gpu")
    assert "Cannot use --device gpu; this machine has cpu" in line
    assert len(line) < 120


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
    assert run(["presets", "cifar10"]) == 0
    assert "imagenet256" not in capsys.readouterr().out


def test_a_preset_is_printed_as_toml_or_json(capsys):
    assert run(["presets", "demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "demo"
    assert run(["presets", "demo", "--toml"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["preset"] == "demo"
    assert "Name the preset" in error_of(capsys, "presets", "--toml")
    assert "did you mean cifar10" in error_of(capsys, "presets", "cifar", "--toml")


def test_doctor_and_report_describe_a_run(trained, capsys):
    assert run(["doctor", str(trained)]) == 0
    assert "autoencoder is done" in capsys.readouterr().out
    assert run(["report", str(trained)]) == 0
    assert (trained / "report.html").stat().st_size > 10_000


def test_a_report_is_opened_or_written_elsewhere(trained, tmp_path, capsys, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or False)
    page = tmp_path / "page.html"
    assert run(["report", str(trained), "--out", str(page), "--open"]) == 0
    assert opened == [page.as_uri()]
    assert "No browser was found" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["config.json", "data.json", "model/config.json"])
def test_a_run_of_another_version_names_a_remedy(trained, tmp_path, capsys, name):
    copy = shutil.copytree(trained, tmp_path / "copy")
    content = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps({**content, "version": 99}))
    command = "sample" if name.startswith("model") else "evaluate"
    line = error_of(capsys, command, copy)
    assert "got vqvae2-" in line
    assert "version 99; use the version of vqvae2 that" in line
