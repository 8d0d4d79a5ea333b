"""`vqvae2 evaluate`."""

from dataclasses import replace

from builders import save_network, synthetic_images
from commands import error_of
from small_runs import small_run, train

from vqvae2.cli.main import run
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.metrics.describe import METRICS
from vqvae2.runs.folder import RunFolder


def test_a_run_is_measured_and_printed_metric_by_metric(trained, capsys):
    assert run(["evaluate", str(trained), "--limit", "4"]) == 0
    text = capsys.readouterr().out
    assert "Metrics of 4 validation images" in text
    for name in ("MSE", "PSNR, dB", "codes used", "perplexity", "nats per code", "level 1"):
        assert name in text


def test_results_go_to_another_folder(trained, tmp_path, capsys):
    before = (trained / "metrics.json").read_bytes()
    out = tmp_path / "results"
    assert run(["evaluate", str(trained), "--limit", "4", "--out", str(out)]) == 0
    assert f"results in {out / 'metrics.json'}" in capsys.readouterr().out
    assert RunFolder(trained, out).read_metrics().reconstruction.num_images == 4
    assert (trained / "metrics.json").read_bytes() == before


def test_networks_that_cannot_measure_are_one_line(trained, tmp_path, capsys):
    save_network(tmp_path / "Judge.pt", outputs=2)
    command = ["evaluate", trained, "--samples", "100", "--extractor"]
    assert "at least 10 in each" in error_of(capsys, *command, tmp_path / "Judge.pt")
    assert "There is no network at" in error_of(capsys, *command, tmp_path / "no.pt")


def test_options_without_effect_are_one_line(trained, capsys):
    command = ["evaluate", trained]
    assert "--extractor needs --samples" in error_of(capsys, *command, "--extractor", "x")
    assert "--keep needs --samples" in error_of(capsys, *command, "--keep", "0.5")
    assert "--score needs --cas" in error_of(capsys, *command, "--score.steps", "3")
    judge = ["--samples", "20", "--judge", "x"]
    assert "--judge selects fractions" in error_of(capsys, *command, *judge)
    assert "number of images, got -1" in error_of(capsys, *command, "--cas", "-1")


def test_one_command_measures_everything(tmp_path, capsys, monkeypatch):
    config = small_run()
    config = replace(config, data=replace(config.data, synthetic_images=240))
    folder = train(tmp_path / "run", config)
    monkeypatch.setenv("COLUMNS", "160")
    save_network(tmp_path / "Judge.pt", outputs=12)
    for number, image in enumerate(synthetic_images(12, first=900)):
        save_png(tmp_path / "other" / f"{number:03d}.png", to_pil(image))
    samples = ["--samples", "48", "--extractor", str(tmp_path / "Judge.pt"), "--keep", "1", "0.5"]
    cas = ["--cas", "40", "--score.depth", "8", "--score.steps", "2"]
    outside = ["--outside", str(tmp_path / "other"), "--outside-limit", "12"]
    samples += ["--temperatures", "0.5"]
    assert run(["evaluate", str(folder.path), *samples, *cas, *outside]) == 0
    text = capsys.readouterr().out
    for part in ("FID-Judge", "best 50 % of samples", "temperature 0.5", "ResNet-8", "all codes"):
        assert part in text
    metrics = folder.read_metrics()
    for measured in metrics.samples["Judge"].by_fraction.values():
        assert 0 <= measured["accuracy_score"] <= 1
    for result in (metrics.samples["Judge"], metrics.accuracy_score):
        assert result.provenance.images_fingerprint
    for measured in metrics.measurements().values():
        assert {*measured.values, *measured.per_level} <= set(METRICS)
    assert folder.neighbours("Judge").is_file()
    assert run(["report", str(folder.path)]) == 0
    assert run(["doctor", str(folder.path)]) == 0
    assert "Judge" in capsys.readouterr().out
