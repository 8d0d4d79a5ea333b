from builders import save_network
from commands import error_of

from vqvae2.cli.main import run


def test_a_run_is_measured_and_printed_metric_by_metric(trained, capsys):
    assert run(["evaluate", str(trained), "--limit", "4"]) == 0
    text = capsys.readouterr().out
    assert "Metrics of 4 validation images" in text
    for name in ("MSE", "PSNR, dB", "codes used", "perplexity", "nats per code", "level 1"):
        assert name in text


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
