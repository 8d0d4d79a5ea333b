import shutil

import pytest
import torch
from small_runs import small_run, train

from vqvae2.evaluation.evaluation import evaluate
from vqvae2.metrics.results import Measurement, SampleMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report.doctor import diagnose, judge_extractor, judge_prior, judge_usage
from vqvae2.runs.folder import RunFolder
from vqvae2.training.checkpoint import saved_steps
from vqvae2.weights import save_autoencoder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return train(tmp_path_factory.mktemp("doctor"), small_run())


def usage(counts: list[int]) -> CodeUsage:
    return CodeUsage(torch.tensor(counts))


def test_a_collapsed_level_is_bad_and_says_what_to_do():
    finding = judge_usage(0, usage([1000] + [0] * 511), enough=True)
    assert finding.verdict == "bad"
    assert "collapsed" in finding.what
    assert "level_dropout" in finding.advice


def test_dead_codes_are_watched_and_a_used_codebook_is_good():
    assert judge_usage(0, usage([10] * 400 + [0] * 112), enough=True).verdict == "watch"
    assert "Too few" in judge_usage(0, usage([10] * 400 + [0] * 112), enough=False).advice
    assert judge_usage(0, usage([10] * 512), enough=True).verdict == "good"


def test_a_prior_suspiciously_near_0_is_bad():
    finding = judge_prior(0, [{"nats_per_code": 0.01}], Measurement(0))
    assert finding.verdict == "bad"
    assert "suspiciously near 0" in finding.what


def test_an_overfitted_prior_is_watched():
    levels = {"gap_nats_per_code": (1.0,), "train_nats_per_code": (2.0,)}
    metrics = Measurement(8, {}, levels)
    finding = judge_prior(0, [{"nats_per_code": 3.0}], metrics)
    assert finding.verdict == "watch"
    assert "overfitted" in finding.what
    rising = judge_prior(0, [{"nats_per_code": 3.0}, {"nats_per_code": 3.5}], Measurement(0))
    assert "rose to 3.500" in rising.what
    assert judge_prior(0, [{"nats_per_code": 3.0}], Measurement(0)).verdict == "good"


def test_a_network_of_other_images_and_too_few_of_them_are_told():
    def measured(num_features: int, **values: float) -> SampleMetrics:
        one = Measurement(10_000, values)
        return SampleMetrics("d", num_features, "Net", "d", "", (), "", one, one, {"1": one})

    assert judge_extractor("Net", measured(64, class_accuracy=0.93), 10).verdict == "good"
    lost = judge_extractor("Net", measured(64, class_accuracy=0.1), 10)
    assert lost.verdict == "bad"
    assert "recognises only 10 % of the validation images" in lost.what
    few = judge_extractor("Net", measured(8192), 10)
    assert few.verdict == "watch"
    assert "few for its 8,192 features" in few.what
    assert "KID-Net" in few.advice
    assert "16,384 images" in few.advice


def test_a_whole_run_gets_a_word_on_every_part(run_folder):
    evaluate(run_folder, limit=8)
    text = " ".join(finding.what for finding in diagnose(run_folder))
    for part in ("autoencoder is done", "blanking", "belong together", "prior of level 1"):
        assert part in text


def test_codes_of_another_autoencoder_and_priors_that_do_not_fit_are_bad(run_folder, tmp_path):
    shutil.copytree(run_folder.path, tmp_path / "run")
    other = Pipeline.open(tmp_path / "run").autoencoder
    other.codebooks[0].vectors += 1
    save_autoencoder(tmp_path / "run" / "model" / "autoencoder", other)
    bad = [f.what for f in diagnose(RunFolder(tmp_path / "run")) if f.verdict == "bad"]
    assert any("was made by autoencoder" in what for what in bad)
    assert any("was trained on the codes of" in what for what in bad)


def test_a_damaged_checkpoint_and_an_unfinished_stage_are_told(run_folder, tmp_path):
    shutil.copytree(run_folder.path, tmp_path / "run")
    (tmp_path / "run" / "model" / "priors" / "0" / "config.json").unlink()
    newest = saved_steps(tmp_path / "run" / "checkpoints" / "prior0")[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    findings = diagnose(RunFolder(tmp_path / "run"))
    assert any("damaged" in f.what for f in findings if f.verdict == "bad")
    assert any(
        "prior of level 0 is at step 5 of 10" in f.what for f in findings if f.verdict == "watch"
    )
