import json

from builders import save_network
from commands import error_of

from vqvae2.cli.main import run


def test_sets_are_compared_and_the_comparison_is_written(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    save_network(tmp_path / "Small.pt")
    out = tmp_path / "comparison.json"
    extractor = ["--extractor", str(tmp_path / "Small.pt"), "--count", "12"]
    sets = [str(trained), f"{trained}:train"]
    against = ["--against", f"{trained}:train", *extractor, "--out", str(out)]
    assert run(["compare", *sets, *against]) == 0
    assert "FID-Small" in capsys.readouterr().out
    no_sharp = error_of(capsys, "compare", *sets, *against, "--decoder", "sharp")
    assert "sharp" in no_sharp
    assert "--decoder needs --against" in error_of(
        capsys, "compare", trained, "--decoder", "plain"
    )
    written = json.loads(out.read_text())
    assert list(written["sets"]) == sets
    assert written["num_images"] == 12


def test_the_metrics_of_runs_are_printed_in_columns(trained, capsys):
    assert run(["evaluate", str(trained), "--limit", "4"]) == 0
    assert run(["compare", str(trained), str(trained)]) == 0
    assert "mse" in capsys.readouterr().out


def test_sets_that_cannot_be_compared_are_one_line(trained, tmp_path, capsys):
    save_network(tmp_path / "Small.pt")
    extractor = ["--extractor", str(tmp_path / "Small.pt")]
    assert "one run or folder" in error_of(capsys, "compare")
    assert "is not a run folder" in error_of(capsys, "compare", tmp_path)
    missing = ["compare", trained, "--against", tmp_path / "no", *extractor]
    assert "no" in error_of(capsys, *missing)
    assert "--count must be at least 1" in error_of(capsys, "compare", trained, "--count", "0")
    assert "pixels, got -5" in error_of(capsys, "compare", trained, "--size", "-5")
