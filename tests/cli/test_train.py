import json
import re
import signal

import pytest
from builders import make_folder, synthetic_images
from commands import TINY, error_of, train_command
from PIL import Image

from vqvae2.cli.main import run
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import find_preset
from vqvae2.training import fit, planning


def test_training_ends_with_models_metrics_and_a_grid_of_samples(trained):
    for name in ("model/autoencoder", "model/priors/0", "model/priors/1"):
        assert (trained / name / "model.safetensors").is_file()
    metrics = RunFolder(trained).read_metrics()
    assert metrics.reconstruction["mse"] > 0
    assert len(metrics.priors.levels("validation_nats_per_code")) == 2
    with Image.open(trained / "samples-grid.png") as grid:
        assert grid.size[0] > 100
    assert list((trained / "previews").glob("prior1-*.png"))


def test_repeating_the_command_trains_nothing_twice(trained, capsys):
    weights = trained / "model" / "priors" / "1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert run(["train", "--run", str(trained)]) == 0
    assert weights.stat().st_mtime_ns == before
    text = capsys.readouterr().out
    assert "Everything was trained before" in text
    assert "bits per dimension" in text


def test_images_without_labels_train_and_sample(tmp_path, capsys):
    data, folder = make_folder(tmp_path / "flat", count=40, classes=0), tmp_path / "run"
    assert run([*train_command(data, folder), *TINY]) == 0
    assert "One sub-folder per class gives labels" in capsys.readouterr().out
    assert run(["sample", str(folder), "--count", "2"]) == 0
    assert (folder / "samples" / "image-00000.png").is_file()


def test_a_truncated_image_is_skipped_and_named(tmp_path, capsys):
    data, folder = make_folder(tmp_path / "data", count=40, classes=1), tmp_path / "run"
    content = (data / "class0" / "000.png").read_bytes()
    (data / "class0" / "bad.png").write_bytes(content[:150])
    assert run([*train_command(data, folder), *TINY, "--stage", "autoencoder"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert re.search("1 image cannot be used: skipped class0/bad.png: .*truncated", text)
    assert json.loads((folder / "data.json").read_text())["skipped"] == ["class0/bad.png"]


def test_images_that_cannot_be_used_are_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    small = tmp_path / "small"
    for name in ("a.png", "b.png"):
        save_png(small / name, to_pil(synthetic_images(1)[0, :, :4, :4]))

    def error(data):
        return error_of(capsys, *train_command(data, tmp_path / "run"), *TINY)

    assert "nowhere" in error(tmp_path / "nowhere")
    assert "empty" in error(tmp_path / "empty")
    assert "small" in error(small)
    assert not (tmp_path / "run").exists(), "a failed attempt leaves nothing"


def test_a_run_that_cannot_begin_leaves_no_folder(tmp_path, capsys):
    data, folder = make_folder(tmp_path / "data", count=40), tmp_path / "runs" / "run"
    command = [*train_command(data, folder), *TINY]
    assert "batch" in error_of(capsys, *command, "--autoencoder.training.accumulate", "3")
    assert not folder.parent.exists()
    folder.mkdir(parents=True)
    (folder / "mine.txt").write_text("kept")
    assert "batch" in error_of(capsys, *command, "--autoencoder.training.accumulate", "3")
    assert (folder / "mine.txt").is_file()


def test_a_run_of_one_image_is_refused(tmp_path, capsys):
    data = make_folder(tmp_path / "data", count=1, classes=0)
    line = error_of(capsys, *train_command(data, tmp_path / "run"), *TINY)
    assert "At least 2 images are needed" in line
    assert not (tmp_path / "run").exists()


def test_a_file_gives_the_configuration(tmp_path, capsys):
    assert run(["presets", "demo", "--toml"]) == 0
    file = tmp_path / "run.toml"
    file.write_text(capsys.readouterr().out.replace("size = 64", "size = 16"))
    data = make_folder(tmp_path / "data", count=40)
    command = ["train", "--config", str(file), "--data", str(data), "--stage", "autoencoder"]
    command += ["--run", str(tmp_path / "run"), *TINY[2:]]
    assert run(command) == 0
    text = capsys.readouterr().out
    assert re.search(r"autoencoder +12 +8", text), "the stages and their steps are printed first"
    assert RunFolder(tmp_path / "run").read().data.source == str(data)
    both = error_of(capsys, *command, "--preset", "demo")
    assert "--config FILE holds the whole configuration, got --preset demo" in both
    missing = error_of(capsys, "train", "--config", tmp_path / "no.toml")
    assert "There is no file" in missing
    file.write_text('preset = "cifar10"')
    assert "names no images: give --data" in error_of(capsys, "train", "--config", file)


def test_batches_shrink_to_a_small_folder(tmp_path, capsys):
    data, folder = make_folder(tmp_path / "few", count=6), tmp_path / "run"
    assert run([*train_command(data, folder), *TINY]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Batches are smaller than configured: there are 5 training images." in text
    config = RunFolder(folder).read()
    assert config.autoencoder.training.batch == config.levels[0].training.batch == 4
    assert run(["train", "--run", str(folder)]) == 0


def test_a_command_without_images_names_what_is_missing(tmp_path, capsys):
    assert "Nothing to train" in error_of(capsys, "train")
    assert "is not a run yet" in error_of(capsys, "train", "--run", tmp_path / "new")
    assert "give --data" in error_of(capsys, "train", "--preset", "cifar10")
    unknown = error_of(capsys, "train", "--preset", "cifar11", "--data", "x")
    assert "did you mean cifar10" in unknown


TINY_PLAN = """
--data.size 16 --autoencoder.model.channels 16 --autoencoder.model.residual-channels 8
--autoencoder.training.steps 12 --autoencoder.continuous-steps 3
--decoder.model.channels 16 --decoder.model.residual-channels 8 --decoder.training.steps 6
--decoder.discriminator.channels 8 --decoder.discriminator.num-scales 2
--decoder.perceptual-weight 0
--levels.0.prior.channels 8 --levels.0.prior.num-layers 1 --levels.0.prior.num-heads 1
--levels.1.prior.channels 8 --levels.1.prior.num-layers 1 --levels.1.prior.num-heads 1
--levels.0.training.steps 6 --levels.1.training.steps 6
""".split()


def test_hours_plan_a_run_that_the_same_command_continues(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "SECONDS_PER_MEASUREMENT", 0.0)
    data, folder = make_folder(tmp_path / "data", count=40), tmp_path / "run"
    command = ["train", "--data", str(data), "--run", str(folder), "--hours", "0.5"]
    assert run([*command, *TINY_PLAN]) == 0
    text = capsys.readouterr().out
    assert "Planned: images of 16 pixels, codes 2x2 of 32 + 4x4 of 64." in text
    config = RunFolder(folder).read()
    assert config.preset == "0.5h"
    assert run(command) == 0
    assert "Everything was trained before" in capsys.readouterr().out
    assert RunFolder(folder).read() == config
    assert "was begun as 0.5h" in error_of(capsys, *command[:-1], "3")


def test_hours_that_cannot_be_planned_are_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "SECONDS_PER_MEASUREMENT", 0.0)
    data = make_folder(tmp_path / "data", count=40)
    command = ["train", "--data", data, "--run", tmp_path / "run", "--hours"]
    assert "need at least" in error_of(capsys, *command, "0.00001")
    assert "above 0" in error_of(capsys, *command, "-1")
    assert not (tmp_path / "run").exists()
    assert "leave one" in error_of(capsys, *command, "1", "--preset", "demo")
    assert "give --data" in error_of(capsys, "train", "--hours", "1")
    assert not list((tmp_path / "run").rglob("*.json"))


def test_a_preset_with_guidance_fits_images_without_labels():
    assert find_preset("demo")().levels[0].sampling.guidance > 1
    config = find_preset("demo")().with_classes(1)
    assert [level.sampling.guidance for level in config.levels] == [1, 1]
    assert [level.label_dropout for level in config.levels] == [0, 0]
    assert config.num_classes == 1


def test_a_config_that_cannot_be_trained_is_one_line(tmp_path, capsys):
    command = ["train", "--preset", "demo", "--run", tmp_path / "run"]
    assert "multiples of 8" in error_of(capsys, *command, "--data.size", "20")
    steps = ["--levels.1.training.steps", "0"]
    assert "levels.1.training.steps must be" in error_of(capsys, *command, *steps)
    assert "Unknown stage 'prior'" in error_of(capsys, *command, "--stage", "prior")


def test_a_run_that_has_begun_keeps_its_config(trained, capsys):
    command = ["train", "--run", trained]
    channels = ["--autoencoder.model.channels", "24"]
    assert "another config" in error_of(capsys, *command, *channels)
    assert "the images give the classes" in error_of(capsys, *command, "--num-classes", "7")


def test_a_tracker_without_its_package_is_one_line(trained, capsys):
    assert "needs its package" in error_of(
        capsys, "train", "--run", trained, "--tracker", "mlflow"
    )


def test_ctrl_c_saves_and_names_the_command_that_continues(tmp_path, capsys, monkeypatch):
    data, folder = make_folder(tmp_path / "data", count=40), tmp_path / "run"
    schedule = fit.Schedule.at

    def interrupted(step, training, stop):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return schedule(step, training, stop)

    monkeypatch.setattr(fit.Schedule, "at", interrupted)
    assert run([*train_command(data, folder), *TINY]) == 130
    assert f"To continue: vqvae2 train --run {folder}" in capsys.readouterr().err
    monkeypatch.setattr(fit.Schedule, "at", schedule)
    assert run(["train", "--run", str(folder)]) == 0


PIXEL_PRIORS = {
    "gated-cifar10": "--levels.0.prior.residual-channels 8 --levels.0.prior.num-layers 2",
    "pixelcnnpp-cifar10": "--levels.0.prior.num-layers 1",
    "pixelsnail-cifar10": "--levels.0.prior.num-blocks 1",
}


@pytest.mark.parametrize("preset", list(PIXEL_PRIORS))
def test_a_prior_on_pixels_works_with_every_command(preset, tmp_path, capsys):
    data, folder = make_folder(tmp_path / "data", count=24), tmp_path / "run"
    tiny = (
        f"{PIXEL_PRIORS[preset]} --data.size 8 --levels.0.prior.channels 8 "
        "--levels.0.training.steps 3 --levels.0.training.batch 4 "
        "--levels.0.training.validate-every 3"
    ).split()
    command = [*train_command(data, folder, preset), *tiny]
    assert "there are: all, priors" in error_of(capsys, *command, "--stage", "autoencoder")
    assert run([*command, "--stage", "priors"]) == 0
    assert run(command) == 0
    assert "bits per dimension" in capsys.readouterr().out
    metrics = RunFolder(folder).read_metrics().priors
    assert 4 < metrics["validation_bits_per_dim"] < 12
    assert run(["sample", str(folder), "--classes", "class1", "--count", "2"]) == 0
    with Image.open(folder / "samples" / "class1-00000.png") as image:
        assert image.size == (8, 8)
    for name in ("report", "doctor", "evaluate"):
        assert run([name, str(folder)]) == 0
    assert run(["inpaint", str(folder), str(data / "class0"), "--class", "class0"]) == 0
    assert "bits per dimension on validation images" in (folder / "report.html").read_text()
