"""A run with two classes, trained once for all tests of commands."""

from pathlib import Path

import pytest
from builders import make_folder
from commands import TINY, train_command

from vqvae2.cli.main import run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder; its images are in the folder `data` beside it."""
    home = tmp_path_factory.mktemp("trained")
    data = make_folder(home / "data")
    assert run([*train_command(data, home / "run"), *TINY]) == 0
    return home / "run"
