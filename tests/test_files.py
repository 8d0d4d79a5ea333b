"""Atomic files, without pickle."""

import os
import re
from pathlib import Path

import pytest

import vqvae2
from vqvae2.files import write_bytes


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


def test_nothing_is_read_through_pickle():
    paths = list(Path(vqvae2.__file__).parent.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        text = path.read_text()
        assert "import pickle" not in text
        # The one file that is not ours is in that format; only tensors are read from it.
        loads = re.findall(r"torch\.load\(.*", text)
        assert all("weights_only=True" in line for line in loads)
        assert not loads or path.name == "efficientnet.py"
        assert "allow_pickle" not in text
