import re

import numpy as np
from builders import save_network
from commands import error_of
from PIL import Image

from vqvae2.cli.main import run
from vqvae2.imaging.png import read_settings


def test_samples_are_files_with_their_settings(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--classes", "class1", "--count", "3", "--seed", "5"]
    sampling = ["--temperature", "0.5", "1.0", "--top-k", "7", "--top-p", "0.9"]
    assert run([*command, *sampling, "--out", str(tmp_path / "out")]) == 0
    assert "3 images in" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["class1-00005.png", "class1-00006.png", "class1-00007.png"]
    assert (tmp_path / "out-grid.png").is_file()
    coarse, fine = read_settings(tmp_path / "out" / names[1])["sampling"]
    assert (coarse["temperature"], fine["temperature"]) == (0.5, 1.0)
    assert (coarse["top_k"], fine["top_k"]) == (7, 7)
    assert (coarse["top_p"], fine["top_p"]) == (0.9, 0.9)


def test_guidance_is_an_option_and_a_setting(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--count", "1", "--guidance", "2", "1"]
    line = error_of(capsys, *command, "--out", tmp_path / "none")
    assert "trained with label dropout" in line
    assert "bayes" in line
    assert not (tmp_path / "none").exists()
    assert run([*command, "--unconditional", "bayes", "--out", str(tmp_path / "out")]) == 0
    coarse, fine = read_settings(next((tmp_path / "out").iterdir()))["sampling"]
    assert (coarse["guidance"], fine["guidance"]) == (2, 1)
    assert coarse["unconditional"] == "bayes"


def test_images_of_earlier_calls_are_mentioned(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--count", "2", "--out", str(tmp_path / "out")]
    for _ in range(2):  # the same images again are not older ones
        assert run(command) == 0
        assert "earlier calls" not in capsys.readouterr().out
    assert run([*command, "--seed", "9"]) == 0
    assert "also has 4 images of earlier calls; give another --out" in capsys.readouterr().out


def test_temperature_0_is_mentioned_because_images_are_equal(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--classes", "class1", "--count", "2", "--temperature"]
    assert run([*command, "0", "--out", str(tmp_path / "a")]) == 0
    assert "the images of a class are equal" in capsys.readouterr().out
    first, second = sorted((tmp_path / "a").iterdir())
    assert np.array_equal(np.array(Image.open(first)), np.array(Image.open(second)))
    assert run([*command, "0", "1", "--out", str(tmp_path / "b")]) == 0
    assert "are equal" not in capsys.readouterr().out


def test_a_precision_is_an_option(trained, tmp_path, capsys):
    command = ["sample", str(trained), "--count", "1", "--precision"]
    assert run([*command, "bfloat16", "--out", str(tmp_path / "out")]) == 0
    line = error_of(capsys, *command, "double")
    assert "--precision must be one of float32, tf32, bfloat16, auto, got 'double'" in line


def test_a_place_that_cannot_be_written_is_named_before_any_work(trained, capsys, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("work has begun")

    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr("vqvae2.pipeline.Pipeline.open", fail)
    data = trained.parent / "data"
    codes = data.parent / "codes.parquet"
    for command in (["sample"], ["reconstruct", data], ["inpaint", data], ["encode", data]):
        line = error_of(capsys, command[0], trained, *command[1:])
        assert re.search(r"is read-only; write to another place with --out F", line), command
    for command in (["evaluate"], ["report"]):
        assert "--out F" in error_of(capsys, *command, trained)
    assert not codes.exists()


def test_a_judge_selects_a_fraction_of_the_samples(trained, tmp_path, capsys):
    save_network(tmp_path / "judge.pt", outputs=2)
    command = ["sample", str(trained), "--count", "3", "--classes", "class1", "class1"]
    selecting = ["--keep", "0.34", "--judge", str(tmp_path / "judge.pt")]
    assert run([*command, *selecting, "--out", str(tmp_path / "best")]) == 0
    assert "3 images of 9, selected by judge," in " ".join(capsys.readouterr().out.split())
    assert len(list((tmp_path / "best").iterdir())) == 3
    save_network(tmp_path / "judge.pt", outputs=7)
    line = error_of(capsys, *command, *selecting, "--out", tmp_path / "x")
    assert "7 classes" in line
    assert "the model has 2" in line


def test_fractions_need_a_judge(trained, capsys):
    assert "give --judge NETWORK" in error_of(capsys, "sample", trained, "--keep", "0.5")
    assert "in (0, 1], got 2" in error_of(capsys, "sample", trained, "--keep", "2")


def test_options_that_fit_no_model_are_one_line(trained, capsys):
    command = ["sample", trained]
    assert "did you mean class" in error_of(capsys, *command, "--classes", "clas1")
    assert "[0, 2), got 7" in error_of(capsys, *command, "--classes", "7")
    assert "got -1.0" in error_of(capsys, *command, "--temperature", "-1")
    line = error_of(capsys, *command, "--top-k", "1", "2", "3")
    assert "top_k takes one value, or one for each of the 2 levels, got 3" in line
    assert "at least 1, got 0" in error_of(capsys, *command, "--batch", "0")
