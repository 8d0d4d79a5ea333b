"""Properties over many inputs that hypothesis makes up."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.configuration import differences, from_dict, to_dict
from vqvae2.runs.log import Log


@given(
    factors=st.lists(st.sampled_from([1, 2, 4, 8]), min_size=1, max_size=4).map(tuple),
    channels=st.integers(1, 512), weight=st.floats(0, 10), codes=st.integers(1, 9999),
)  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_a_config_survives_json_and_differs_from_another(factors, channels, weight, codes):
    config = VQVAEConfig(
        factors=factors, channels=channels, commitment_weight=weight,
        codebooks=(CodebookConfig(num_codes=codes),),
    )  # fmt: skip
    data = json.loads(json.dumps(to_dict(config)))
    assert from_dict(VQVAEConfig, data) == config
    assert differences(data, to_dict(config)) == []
    other = dataclasses.replace(config, channels=channels + 1)
    assert len(differences(data, to_dict(other))) == 1


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


def test_unknown_fields_and_wrong_types_are_named():
    with pytest.raises(ValueError, match="does not have: colour"):
        from_dict(CodebookConfig, {"colour": 1})
    with pytest.raises(ValueError, match=r"config.num_codes must be int, got 'many'"):
        from_dict(CodebookConfig, {"num_codes": "many"})
    with pytest.raises(ValueError, match=r"config.learn_by must be"):
        from_dict(CodebookConfig, {"learn_by": "magic"})
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a.1.b: 2 before, 3 now"]
