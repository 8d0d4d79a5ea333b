import datasets
from builders import make_folder
from commands import error_of

from vqvae2.cli.main import run


def test_codes_go_to_a_table_and_back(trained, tmp_path, capsys):
    data, table = make_folder(tmp_path / "data", count=6), tmp_path / "codes.parquet"
    assert run(["encode", str(trained), str(data), "--out", str(table)]) == 0
    assert f"codes 2x2 + 4x4 of 6 images in {table}" in " ".join(capsys.readouterr().out.split())
    cache = str(tmp_path / "cache")
    rows = datasets.Dataset.from_parquet(str(table), cache_dir=cache)
    assert rows.column_names == ["name", "label", "class", "level_0", "level_1"]
    assert len(rows[0]["level_1"]) == 16
    out = tmp_path / "out"
    assert run(["decode", str(trained), str(table), "--out", str(out)]) == 0
    assert len(list(out.rglob("*.png"))) == 6
    assert "There is no file" in error_of(capsys, "decode", trained, tmp_path / "none.parquet")
