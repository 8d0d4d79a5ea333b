"""Properties over many inputs that hypothesis makes up."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.autoencoder.codebook import CodebookConfig, nearest_rows
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.configuration import differences, from_dict, to_dict
from vqvae2.randomness import generator
from vqvae2.runs.log import Log
from vqvae2.sampling import SamplingConfig, sample_codes
from vqvae2.sampling.level import filter_logits

seeds = st.integers(0, 2**32 - 1)


@given(seed=seeds, n=st.integers(1, 40), k=st.integers(1, 20), d=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_the_nearest_code_is_nobodys_second_best(seed, n, k, d):
    noise = torch.Generator().manual_seed(seed)
    x, vectors = (torch.randn(m, d, generator=noise).double() for m in (n, k))
    chosen = (x - vectors[nearest_rows(x, vectors)]).square().sum(dim=1)
    best = (x[:, None] - vectors).square().sum(dim=2).min(dim=1).values
    torch.testing.assert_close(chosen, best)


@given(seed=seeds, k=st.integers(1, 30), top_k=st.integers(1, 40), top_p=st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_what_is_drawn_is_kept_and_the_likeliest_is_always_kept(seed, k, top_k, top_p):
    noise = torch.Generator().manual_seed(seed)
    logits = torch.randn(5, k, generator=noise).double()
    draw = SamplingConfig(top_k=top_k, top_p=top_p)
    left = filter_logits(logits, draw) > -np.inf
    assert left[torch.arange(5), logits.argmax(dim=1)].all()
    assert (left.sum(dim=1) <= top_k).all()
    codes = sample_codes(logits, torch.rand(5, generator=noise).double(), draw)
    assert left[torch.arange(5), codes].all()


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


@given(
    a=st.tuples(st.text(max_size=5), st.integers()),
    b=st.tuples(st.text(max_size=5), st.integers()),
)
@settings(max_examples=50, deadline=None)
def test_equal_keys_give_equal_streams_and_other_keys_others(a, b):
    first, again, other = (torch.rand(4, generator=generator(*key)) for key in (a, a, b))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (a == b)


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
