from builders import make_folder
from commands import error_of

from vqvae2.cli.main import run


def test_readable_images_are_reconstructed_and_others_named(trained, tmp_path, capsys):
    data = make_folder(tmp_path / "flat", count=5, classes=0)
    (data / "broken.png").write_bytes((data / "000.png").read_bytes()[:200])
    assert run(["reconstruct", str(trained), str(data), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("0*.png"))) == 5
    assert (tmp_path / "out-grid.png").is_file()
    text = " ".join(capsys.readouterr().out.split())
    assert "skipped broken.png" in text
    assert "5 images in" in text
    assert "MSE 0." in text


def test_a_single_image_is_reconstructed(trained, tmp_path, capsys):
    data = make_folder(tmp_path / "flat", count=2, classes=0)
    command = ["reconstruct", str(trained), str(data / "001.png"), "--out", str(tmp_path / "out")]
    assert run(command) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["001.png"]
    (tmp_path / "notes.txt").write_text("none")
    assert "is no image" in error_of(capsys, "reconstruct", trained, tmp_path / "notes.txt")
