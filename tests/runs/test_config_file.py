"""Configurations as TOML and JSON files."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqvae2.configuration import to_dict
from vqvae2.runs.config_file import read_config, to_toml
from vqvae2.runs.presets import PRESETS, cifar10, demo

SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))
OBJECTS = st.recursive(
    st.dictionaries(KEYS, SCALARS, max_size=3),
    lambda inner: st.dictionaries(
        KEYS, st.one_of(SCALARS, inner, st.lists(inner, max_size=2), st.lists(SCALARS)), max_size=3
    ),
    max_leaves=8,
)


@given(OBJECTS)
def test_every_object_is_read_back_as_it_was_written(content):
    assert tomllib.loads(to_toml(content)) == content


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_as_toml_or_json_is_the_preset(name, tmp_path):
    config = PRESETS[name]()
    (tmp_path / "run.toml").write_text(to_toml(to_dict(config)))
    (tmp_path / "run.json").write_text(json.dumps(to_dict(config)))
    assert read_config(tmp_path / "run.toml") == config
    assert read_config(tmp_path / "run.json") == config


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_changes_the_preset_that_it_names(tmp_path):
    text = """
        preset = "cifar10"
        [data]
        source = "photos"
        [autoencoder.training]
        steps = 7
        [[levels]]
        [[levels]]
        prior.dropout = 0.5
    """
    config, preset = read_config(written(tmp_path / "run.toml", text)), cifar10()
    assert config.data == replace(preset.data, source="photos")
    assert config.autoencoder.training == replace(preset.autoencoder.training, steps=7)
    assert config.levels[0] == preset.levels[0]
    assert config.levels[1].prior == replace(preset.levels[1].prior, dropout=0.5)


def test_a_prior_of_another_kind_replaces_that_of_the_preset(tmp_path):
    text = 'preset = "demo"\n[[levels]]\nprior.kind = "transformer"\n[[levels]]\n'
    config = read_config(written(tmp_path / "run.toml", text))
    assert config.levels[0].prior.kind == "transformer"
    assert config.levels[1] == demo().levels[1]


def test_the_config_of_a_run_needs_no_known_preset(tmp_path):
    config = replace(demo(), preset="0.25h")
    header = {"format": "vqvae2-run", "version": 3}
    path = written(tmp_path / "config.json", json.dumps({**header, **to_dict(config)}))
    assert read_config(path) == config


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "", r"a \.toml or \.json file"),
        ("run.toml", "a = ", "not valid TOML: Invalid value"),
        ("run.json", "[1]", "must hold fields of a run, got a list"),
        ("run.toml", 'preset = "cifar"', "did you mean cifar10"),
        ("run.toml", 'preset = "demo"\nseeed = 1', "fields that RunConfig does not have: seeed"),
        ("run.toml", 'preset = "demo"\nseed = "x"', r"run\.toml\.seed must be int, got 'x'"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_what_is_wrong(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message):
        read_config(written(tmp_path / name, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        read_config(tmp_path / "run.toml")
