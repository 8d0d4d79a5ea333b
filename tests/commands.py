"""Commands of the command line, as tests run them."""

from pathlib import Path

import pytest

from vqvae2.cli.main import run

TINY = """
--data.size 16
--autoencoder.model.channels 16 --autoencoder.model.residual-channels 8
--autoencoder.model.codebooks.0.num-codes 24 --autoencoder.model.codebooks.0.code-size 6
--autoencoder.model.codebooks.1.num-codes 24 --autoencoder.model.codebooks.1.code-size 6
--autoencoder.training.steps 12 --autoencoder.training.batch 8
--autoencoder.continuous-steps 3
--levels.0.training.steps 6 --levels.0.training.batch 8
--levels.1.training.steps 6 --levels.1.training.batch 8
--levels.0.prior.channels 8 --levels.0.prior.num-heads 1 --levels.0.prior.num-layers 2
--levels.1.prior.channels 8 --levels.1.prior.num-heads 1 --levels.1.prior.num-layers 2
--levels.0.label-dropout 0 --levels.0.sampling.guidance 1
--levels.1.label-dropout 0 --levels.1.sampling.guidance 1
""".split()


def train_command(data: Path, folder: Path, preset: str = "demo") -> list[str]:
    return ["train", "--preset", preset, "--data", str(data), "--run", str(folder)]


def error_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command with a user's error prints; its exit code must be 2."""
    capsys.readouterr()
    assert run(list(map(str, arguments))) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("vqvae2: ")
    assert len(line.splitlines()) == 1
    assert "Traceback" not in line
    return line
