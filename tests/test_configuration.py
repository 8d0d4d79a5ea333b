"""Dataclasses to JSON and back."""

import dataclasses
import json
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAEConfig
from vqvae2.configuration import differences, from_dict, to_dict
from vqvae2.priors import PriorConfig, TransformerConfig


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


def test_unknown_fields_and_wrong_types_are_named():
    with pytest.raises(ValueError, match="does not have: colour"):
        from_dict(CodebookConfig, {"colour": 1})
    with pytest.raises(ValueError, match=r"config.num_codes must be int, got 'many'"):
        from_dict(CodebookConfig, {"num_codes": "many"})
    with pytest.raises(ValueError, match=r"config.learn_by must be"):
        from_dict(CodebookConfig, {"learn_by": "magic"})
    assert differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}) == ["a.1.b: 2 before, 3 now"]


@dataclasses.dataclass(frozen=True)
class Everything:
    """One field of each kind that a config may have."""

    whole: int = 1
    number: float = 1.0
    flag: bool = False
    choice: Literal["a", "b"] | None = None
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[str, ...] = ()
    table: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    prior: PriorConfig | None = None


EVERYTHING = Everything(
    choice="b", many=("x",), table={"k": (1, 2)}, prior=TransformerConfig(num_layers=2)
)


def test_every_kind_of_field_survives_json():
    data = json.loads(json.dumps(to_dict(EVERYTHING)))
    assert from_dict(Everything, data) == EVERYTHING
    assert from_dict(Everything, to_dict(Everything())) == Everything()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("whole", True, "config.whole must be int, got True"),
        ("whole", 1.5, "config.whole must be int, got 1.5"),
        ("number", "1", "config.number must be float, got '1'"),
        ("number", 10**400, "config.number must be float"),
        ("flag", 1, "config.flag must be bool, got 1"),
        ("choice", "c", "config.choice must be 'a' or 'b' or null, got 'c'"),
        ("pair", [1], r"config.pair must have 2 values, got \[1\]"),
        ("pair", [1, "x"], "config.pair.1 must be float, got 'x'"),
        ("many", [1], "config.many.0 must be str, got 1"),
        ("table", {"k": ["x"]}, "config.table.k.0 must be int, got 'x'"),
        ("table", [], "config.table must be"),
        ("prior", {"kind": "magic"}, "config.prior.kind must be one of .*transformer.*'magic'"),
        ("prior", {}, "config.prior.kind must be one of .*transformer.* got None"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(field, value, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Everything, {field: value})


def test_lists_of_different_lengths_differ_in_one_short_line():
    assert differences({"a": [1, 2]}, {"a": [1]}) == ["a: 2 entries before, 1 now"]
