"""The files of a run folder."""

import json

import pytest
from small_runs import small_run, train

from vqvae2.configuration import from_dict, to_dict
from vqvae2.files import read_json
from vqvae2.runs.config import RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import PRESETS


@pytest.mark.parametrize("name", list(PRESETS))
def test_a_run_survives_its_json(name, tmp_path):
    run = PRESETS[name]()
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(run)))) == run


def test_every_file_has_a_name_and_a_version(tmp_path):
    folder = train(tmp_path, small_run())
    for path in folder.path.rglob("*.json"):
        document = json.loads(path.read_text())
        assert document["format"].startswith("vqvae2-")
        assert document["version"] in (1, 2, 3)
    newer = json.loads((tmp_path / "config.json").read_text()) | {"version": 4}
    (tmp_path / "config.json").write_text(json.dumps(newer))
    with pytest.raises(ValueError, match="version 3, got vqvae2-run version 4"):
        folder.read()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not readable as JSON"):
        read_json(tmp_path / "config.json", "vqvae2-run", 3)


def test_the_newest_preview_of_each_stage_is_found(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.latest_previews() == {}
    (tmp_path / "previews").mkdir()
    for stage, step in [("autoencoder", 5), ("autoencoder", 10), ("prior0", 2_000_000)]:
        folder.preview(stage, step).touch()
    assert folder.latest_previews() == {
        "autoencoder": folder.preview("autoencoder", 10),
        "prior0": folder.preview("prior0", 2_000_000),
    }
