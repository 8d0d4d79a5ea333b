"""Damaged checkpoints, and those of other versions."""

import pytest
import torch

from vqvae2.training import checkpoint

FLIPS = {
    "flip in a tensor": lambda data: data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
    "flip in the digest's name": lambda data: data.replace(b"digest", b"digesu"),
    "flip in the step": lambda data: data.replace(rb"\"step\": 3", rb"\"step\": 1"),
    "flip in a note": lambda data: data.replace(b"1.0", b"1.4"),
    "cut": lambda data: data[:-7],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("damage", FLIPS)
def test_a_damaged_checkpoint_is_replaced_by_the_one_before(damage, tmp_path):
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


def test_a_checkpoint_of_another_version_is_refused_and_not_removed(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": torch.ones(3)}, {})
    monkeypatch.setattr(checkpoint, "VERSION", 4)
    with pytest.raises(ValueError, match="version 4, got vqvae2-state version 3"):
        checkpoint.latest(tmp_path)
    assert len(checkpoint.saved_steps(tmp_path)) == 1
