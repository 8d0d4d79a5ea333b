"""Every command on a few small images, and what it says to what a user can do wrong."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from builders import make_folder, save_network, synthetic_images
from PIL import Image

from vqvae2.cli.display import monitor
from vqvae2.cli.main import COMMANDS, run
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import read_settings, save_png
from vqvae2.metrics.extractors import torchscript
from vqvae2.training.session import Event

GOLDEN = Path(__file__).parent.parent / "golden"

TINY = """
--data.size 16
--autoencoder.model.channels 16 --autoencoder.model.residual-channels 8
--autoencoder.model.codebooks.0.num-codes 24 --autoencoder.model.codebooks.0.code-size 6
--autoencoder.model.codebooks.1.num-codes 24 --autoencoder.model.codebooks.1.code-size 6
--autoencoder.training.steps 12 --autoencoder.training.batch 8
--autoencoder.continuous-steps 3
--levels.0.training.steps 6 --levels.0.training.batch 8
--levels.1.training.steps 6 --levels.1.training.batch 8
--levels.0.prior.channels 8 --levels.0.prior.residual-channels 8 --levels.0.prior.num-layers 2
--levels.1.prior.channels 8 --levels.1.prior.residual-channels 8 --levels.1.prior.num-layers 2
""".split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("trained")
    data = make_folder(home / "data")
    command = ["train", "--preset", "demo", "--data", str(data), "--run", str(home / "run")]
    assert run([*command, *TINY]) == 0
    return home / "run"


def complaint(capsys, *arguments: str) -> str:
    """The one line that a bad command prints; its exit code must be 2."""
    capsys.readouterr()
    assert run(list(arguments)) == 2
    out = capsys.readouterr().err.strip()
    assert out.startswith("vqvae2: ")
    assert len(out.splitlines()) == 1
    assert "Traceback" not in out
    return out


def test_help_lists_every_command(capsys):
    assert run(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in COMMANDS)


def test_version(capsys):
    assert run(["--version"]) == 0
    assert re.fullmatch(r"vqvae2 \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("command", list(COMMANDS))
def test_the_options_of_a_command_change_only_on_purpose(command, capsys):
    with pytest.raises(SystemExit) as stop:
        run([command, "--help"])
    assert stop.value.code == 0
    options = sorted(set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"})
    frozen = json.loads((GOLDEN / "options.json").read_text())
    assert options == frozen[command]


def test_training_ends_with_models_figures_and_a_sheet(trained):
    for name in ("model/autoencoder", "model/priors/0", "model/priors/1"):
        assert (trained / name / "model.safetensors").is_file()
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["reconstruction"]["values"]["mse"] > 0
    assert len(metrics["priors"]["per_level"]["validation_nats_per_code"]) == 2
    with Image.open(trained / "samples" / "grid.png") as sheet:
        assert sheet.size[0] > 100
    assert list((trained / "previews").glob("prior1-*.png"))


PIXEL_PRIORS = {
    "gated-cifar10": "--levels.0.prior.residual-channels 8 --levels.0.prior.num-layers 2",
    "pixelcnnpp-cifar10": "--levels.0.prior.num-layers 1",
    "pixelsnail-cifar10": "--levels.0.prior.num-blocks 1",
}


@pytest.mark.parametrize("preset", list(PIXEL_PRIORS))
def test_a_prior_on_pixels_trains_samples_and_is_measured_like_one_on_codes(
    preset, tmp_path, capsys
):
    data, folder = make_folder(tmp_path / "data", count=24), tmp_path / "run"
    tiny = f"{PIXEL_PRIORS[preset]} --data.size 8 --levels.0.training.steps 3"
    tiny = f"{tiny} --levels.0.training.batch 4"
    tiny = f"{tiny} --levels.0.prior.channels 8 --levels.0.training.validate-every 3"
    command = ["train", "--preset", preset, "--data", str(data), "--run", str(folder)]
    assert run([*command, *tiny.split(), "--stage", "autoencoder"]) == 0
    assert run([*command, *tiny.split(), "--stage", "priors"]) == 0
    assert run([*command, *tiny.split()]) == 0
    assert "bits per dimension" in capsys.readouterr().out
    metrics = json.loads((folder / "metrics.json").read_text())["priors"]
    nats = metrics["per_level"]["validation_nats_per_code"][0]
    assert metrics["values"]["validation_bits_per_dim"] == pytest.approx(nats / math.log(2))
    assert 4 < metrics["values"]["validation_bits_per_dim"] < 12
    assert run(["sample", str(folder), "--classes", "class1", "--count", "2"]) == 0
    with Image.open(folder / "samples" / "class1-00000.png") as image:
        assert image.size == (8, 8)
    for name in ("report", "doctor", "evaluate"):
        assert run([name, str(folder)]) == 0
    assert run(["inpaint", str(folder), str(data / "class0"), "--class", "class0"]) == 0
    assert "bits per dimension held out" in (folder / "report.html").read_text()


def test_the_same_command_again_does_nothing_twice(trained, capsys):
    stamp = (trained / "model" / "priors" / "1" / "model.safetensors").stat().st_mtime_ns
    assert run(["train", "--run", str(trained)]) == 0
    again = (trained / "model" / "priors" / "1" / "model.safetensors").stat().st_mtime_ns
    assert again == stamp


def test_sample_writes_images_with_their_settings(trained, tmp_path):
    command = ["sample", str(trained), "--classes", "class1", "--count", "3", "--seed", "5"]
    options = ["--temperature", "0.5", "1.0", "--out"]
    assert run([*command, *options, str(tmp_path / "a")]) == 0
    assert run([*command, *options, str(tmp_path / "b"), "--batch", "1"]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["class1-00005.png", "class1-00006.png", "class1-00007.png"]
    assert (tmp_path / "a-grid.png").is_file()
    settings = read_settings(tmp_path / "a" / "class1-00006.png")
    assert (settings["class"], settings["seed"]) == ("class1", 6)
    assert [draw["temperature"] for draw in settings["sampling"]] == [0.5, 1.0]
    for name in names:
        same = [Image.open(tmp_path / run_name / name).tobytes() for run_name in "ab"]
        assert same[0] == same[1]


def test_rejection_keeps_the_samples_that_a_judge_likes_best(trained, tmp_path, capsys):
    judge = tmp_path / "judge.pt"
    save_network(judge, outputs=2)
    command = ["sample", str(trained), "--count", "3", "--classes", "class1", "--out"]
    assert run([*command, str(tmp_path / "all"), "--count", "9"]) == 0
    rejecting = ["--keep", "0.34", "--judge", str(judge)]
    assert run([*command, str(tmp_path / "best"), *rejecting]) == 0
    assert "3 images of 9, selected by judge," in " ".join(capsys.readouterr().out.split())
    kept = sorted((tmp_path / "best").iterdir())
    scores = [read_settings(path)["score"] for path in kept]
    network = torchscript(judge, "judge")
    every = [
        network.probabilities(torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)[None])
        for path in sorted((tmp_path / "all").iterdir())
    ]
    assert sorted(scores) == pytest.approx(sorted(float(p[0, 1]) for p in every)[-3:], rel=1e-4)
    for path in kept:
        assert Image.open(path).tobytes() == Image.open(tmp_path / "all" / path.name).tobytes()
    assert "give --judge NETWORK" in complaint(capsys, *command, "x", "--keep", "0.5")
    assert "in (0, 1], got 2" in complaint(capsys, *command, "x", "--keep", "2")
    save_network(judge, outputs=7)
    line = complaint(capsys, *command, str(tmp_path / "x"), *rejecting)
    assert "tells 7 classes apart, the model has 2" in line


def test_evaluate_measures_samples_with_a_network(trained, tmp_path, capsys):
    network = tmp_path / "Judge.pt"
    save_network(network, outputs=2)
    command = ["evaluate", str(trained), "--samples", "100", "--extractor"]
    line = complaint(capsys, *command, str(network))
    assert "at least 10 in each" in line
    assert "There is no network at" in complaint(capsys, *command, str(tmp_path / "no.pt"))
    assert "--extractor needs --samples" in complaint(
        capsys, "evaluate", str(trained), "--extractor", "x"
    )


def test_redraw_completes_images_and_makes_variations(trained, tmp_path, capsys):
    data = trained.parent / "data"
    some = tmp_path / "some" / "class1"
    some.mkdir(parents=True)
    for path in sorted((data / "class1").iterdir())[:3]:
        (some / path.name).write_bytes(path.read_bytes())
    command = ["inpaint", str(trained), str(tmp_path / "some"), "--count", "2", "--out"]
    assert run([*command, str(tmp_path / "half")]) == 0
    assert run([*command, str(tmp_path / "other"), "--keep-levels", "1", "--batch", "3"]) == 0
    for name in ("half", "other"):
        assert len(list((tmp_path / name).rglob("*.png"))) == 6
        assert (tmp_path / f"{name}-grid.png").is_file()
    path = next((tmp_path / "half").rglob("*-00001.png"))
    settings = read_settings(path)
    assert (settings["seed"], settings["box"]) == (1, [0, 0.5, 1, 1])
    assert run([*command, str(tmp_path / "again"), "--batch", "1"]) == 0
    again = tmp_path / "again" / path.relative_to(tmp_path / "half")
    assert Image.open(path).tobytes() == Image.open(again).tobytes(), "in any batch the same"
    assert Image.open(path).tobytes() != Image.open(some / path.name[:7]).tobytes()
    out = str(tmp_path / "no")
    flat = ["inpaint", str(trained), str(some), "--out", out]
    assert "in no sub-folder with the name of a class" in complaint(capsys, *flat)
    assert "Unknown class 'x'" in complaint(capsys, *flat, "--class", "x")
    named = [*flat, "--class", "class0"]
    assert "a box is left, top" in complaint(capsys, *named, "--box", "0", "0", "2", "1").lower()
    assert "got 2 numbers" in complaint(capsys, *named, "--box", "0", "0")
    assert "keep_levels must be in [0, 2)" in complaint(capsys, *named, "--keep-levels", "2")


def test_the_example_draws_completions_and_variations_on_one_sheet(trained, tmp_path):
    script = Path(__file__).parent.parent.parent / "examples" / "redraw_sheet.py"
    out = tmp_path / "sheet.png"
    options = ["--images", "3", "--versions", "2", "--out", str(out)]
    subprocess.run([sys.executable, str(script), str(trained), *options], check=True)
    with Image.open(out) as sheet:
        assert sheet.size[0] > 7 * 96


def test_reconstruct_evaluate_report_doctor_and_presets(trained, tmp_path, capsys):
    data = make_folder(tmp_path / "flat", count=5, classes=0)
    (data / "broken.png").write_bytes((data / "000.png").read_bytes()[:200])
    assert run(["reconstruct", str(trained), str(data), "--out", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("0*.png.png"))) == 5
    assert (tmp_path / "out-grid.png").is_file()
    assert "broken.png" in capsys.readouterr().out
    assert run(["evaluate", str(trained), "--limit", "4"]) == 0
    assert run(["report", str(trained)]) == 0
    assert (trained / "report.html").stat().st_size > 10_000
    assert run(["doctor", str(trained)]) == 0
    assert "autoencoder is done" in capsys.readouterr().out
    assert run(["presets"]) == 0
    out = capsys.readouterr().out
    assert "imagenet256" in out


def test_images_without_labels_train_and_sample(tmp_path):
    data = make_folder(tmp_path / "flat", count=40, classes=0)
    command = ["train", "--preset", "demo", "--data", str(data), "--run", str(tmp_path / "run")]
    assert run([*command, *TINY]) == 0
    assert run(["sample", str(tmp_path / "run"), "--count", "2"]) == 0
    assert (tmp_path / "run" / "samples" / "image-00000.png").is_file()


def test_a_truncated_image_among_good_ones_is_named_skipped_and_counted(tmp_path, capsys):
    data = make_folder(tmp_path / "data", count=40, classes=1)
    bad = data / "class0" / "bad.png"
    bad.write_bytes((data / "class0" / "000.png").read_bytes()[:150])
    command = ["train", "--preset", "demo", "--data", str(data), "--run", str(tmp_path / "run")]
    assert run([*command, *TINY, "--stage", "autoencoder"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"1 image cannot be used: class0/bad.png \(.*truncated", out)
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["skipped"] == ["class0/bad.png"]


def test_bad_data_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    few = make_folder(tmp_path / "few", count=6)
    small = tmp_path / "small"
    save_png(small / "a.png", to_pil(synthetic_images(1)[0, :, :4, :4]))
    save_png(small / "b.png", to_pil(synthetic_images(1)[0, :, :4, :4]))
    start = ["train", "--preset", "demo", "--run", str(tmp_path / "run"), *TINY, "--data"]
    assert "nowhere" in complaint(capsys, *start, str(tmp_path / "nowhere"))
    assert "empty" in complaint(capsys, *start, str(tmp_path / "empty"))
    assert "at least one batch of 8" in complaint(capsys, *start, str(few))
    assert "small" in complaint(capsys, *start, str(small))


def test_bad_options_are_one_clear_line(trained, tmp_path, capsys):
    assert "did you mean train?" in complaint(capsys, "trian")
    assert "did you mean cifar10" in complaint(
        capsys, "train", "--preset", "cifar11", "--data", "x"
    )
    assert "Nothing to train" in complaint(capsys, "train")
    assert "multiples of 8" in complaint(
        capsys, "train", "--preset", "demo", "--run", str(tmp_path / "r"), "--data.size", "20"
    )
    sample = ["sample", str(trained), "--classes"]
    assert "did you mean class" in complaint(capsys, *sample, "clas1")
    assert "[0, 2), got 7" in complaint(capsys, *sample, "7")
    assert "got -1.0" in complaint(capsys, "sample", str(trained), "--temperature", "-1")
    assert "one value or one per level (2), got 3" in complaint(
        capsys, "sample", str(trained), "--top-k", "1", "2", "3"
    )
    assert "not a run folder" in complaint(capsys, "evaluate", str(tmp_path))
    assert "does not contain a trained model" in complaint(capsys, "sample", str(tmp_path))
    assert "another config" in complaint(
        capsys, "train", "--run", str(trained), "--autoencoder.model.channels", "24"
    )
    assert "was not begun yet" in complaint(capsys, "train", "--run", str(tmp_path / "new"))
    assert "give --data" in complaint(capsys, "train", "--preset", "cifar10")
    assert "levels.1.training.steps must be" in complaint(
        capsys,
        "train",
        "--preset",
        "demo",
        "--run",
        str(tmp_path / "r"),
        "--levels.1.training.steps",
        "0",
    )
    assert "the images tell" in complaint(
        capsys, "train", "--run", str(trained), "--num-classes", "7"
    )
    assert "nonsense" in complaint(capsys, "sample", str(trained), "--nonsense", "1")
    assert "many" in complaint(capsys, "sample", str(trained), "--count", "many")
    assert "at least 1, got 0" in complaint(capsys, "sample", str(trained), "--batch", "0")
    assert "Cannot use --device" in complaint(capsys, "evaluate", str(trained), "--device", "foo")
    assert "needs its package" in complaint(
        capsys, "train", "--run", str(trained), "--tracker", "mlflow"
    )


def test_ctrl_c_saves_says_how_to_go_on_and_exits_with_130(tmp_path, capsys, monkeypatch):
    import signal

    from vqvae2.training import fit

    data, target = make_folder(tmp_path / "data", count=40), tmp_path / "run"
    real = fit.Schedule.at

    def interrupt(step, training, stop):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return real(step, training, stop)

    monkeypatch.setattr(fit.Schedule, "at", interrupt)
    command = ["train", "--preset", "demo", "--data", str(data), "--run", str(target), *TINY]
    assert run(command) == 130
    assert f"To go on: vqvae2 train --run {target}" in capsys.readouterr().err
    monkeypatch.setattr(fit.Schedule, "at", real)
    assert run(["train", "--run", str(target)]) == 0


def test_labels_wanted_but_absent_say_so(tmp_path, capsys):
    from vqvae2.data.config import DataConfig
    from vqvae2.data.images import open_images
    from vqvae2.metrics.agreement import class_agreement

    data = make_folder(tmp_path / "flat", count=12, classes=0)
    dataset = open_images(DataConfig(source=str(data), size=16))
    with pytest.raises(ValueError, match="at least 2 classes, got 0; sort the images"):
        class_agreement(None, dataset)


def test_a_damaged_model_is_one_clear_line(trained, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    weights = copy / "model" / "priors" / "0" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "does not contain this model's weights" in complaint(capsys, "sample", str(copy))
    weights.unlink()
    assert "model.safetensors" in complaint(capsys, "sample", str(copy))


def test_a_full_disk_is_one_clear_line(tmp_path, capsys, monkeypatch):
    import os

    def full(*arguments):
        raise OSError(28, "No space left on device")

    data = make_folder(tmp_path / "data", count=40)
    monkeypatch.setattr(os, "fsync", full)
    command = ["train", "--preset", "demo", "--data", str(data), "--run", str(tmp_path / "run")]
    assert "free some space and repeat" in complaint(capsys, *command, *TINY)


def test_a_lost_rank_is_one_clear_line(trained, capsys, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [::1]:6071")

    monkeypatch.setattr("vqvae2.cli.doctor.diagnose", fail)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "start all of them again" in complaint(capsys, "doctor", str(trained))
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(RuntimeError):
        run(["doctor", str(trained)])


def test_the_time_of_a_stage_begins_when_the_work_before_it_ends(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vqvae2.cli.display.time", SimpleNamespace(monotonic=lambda: now[0]))
    with monitor(shown=False) as view:
        now[0] = 3.0
        view.track("decoding", 1, 1)
        for now[0], stage in [(63.0, "prior0"), (103.0, "prior0"), (104.0, "codes")]:
            view.show(Event(stage, 1, 2))
    # A first step that took a minute, for it was compiled, is the stage's.
    assert view.seconds == {"prior0": 100.0, "codes": 1.0}
