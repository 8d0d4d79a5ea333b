"""The log of a stage."""

from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.runs.log import Log


@given(cut=st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_a_log_cut_at_any_byte_gives_its_whole_lines(tmp_path_factory, cut):
    log = Log(tmp_path_factory.mktemp("log") / "autoencoder.jsonl")
    for step in range(1, 6):
        log.write(step, "train", {"mse": step / 7})
    whole = log.read("train")
    log.path.write_bytes(log.path.read_bytes()[:cut])
    lines = log.read("train")
    assert lines == whole[: len(lines)]
    log.truncate(99)
    log.write(6, "train", {"mse": 1.0})
    assert log.read("train") == [*lines, {"step": 6, "mse": 1.0}]
