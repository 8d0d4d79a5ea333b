import shutil
from dataclasses import replace

import torch

from vqvae2.metrics.results import Measurement, Provenance, SampleMetrics
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report.doctor import (
    diagnose,
    judge_extractor,
    judge_levels,
    judge_prior,
    judge_usage,
)
from vqvae2.training.checkpoint import saved_steps
from vqvae2.weights import save_autoencoder


def usage(counts: list[int]) -> CodeUsage:
    return CodeUsage(torch.tensor(counts))


def test_a_collapsed_codebook_is_a_problem_with_advice():
    finding = judge_usage(0, usage([1000] + [0] * 511), 9)
    assert finding.verdict == "problem"
    assert "collapsed" in finding.text
    assert "--autoencoder.level-dropout" in finding.advice


def test_unused_codes_are_a_warning_and_a_used_codebook_is_good():
    finding = judge_usage(0, usage([10] * 400 + [0] * 112), 9)
    assert finding.verdict == "warning"
    assert "112 are unused" in finding.text
    assert judge_usage(0, usage([10] * 512), 9).verdict == "good"


def test_too_few_codes_cannot_be_judged():
    assert "Too few validation images" in judge_usage(0, usage([2] * 400 + [0] * 112), 9).advice


def test_a_level_without_effect_is_a_problem():
    line = {"mse": 1.0, "mse_level_blanked.0": 1.01, "mse_level_blanked.1": 3.0}
    first, second = judge_levels(line)
    assert (first.verdict, second.verdict) == ("problem", "good")
    (finding,) = judge_levels({"mse": 1.0, "mse_level_blanked.0": 1.1})
    assert "the decoder ignores them" in finding.text


def test_an_autoencoder_without_quantisation_is_the_only_problem(folder):
    config = folder.read()
    for steps, is_problem in [(2, True), (3, False)]:
        training = replace(config.autoencoder.training, steps=steps)
        autoencoder = replace(config.autoencoder, training=training, continuous_steps=2)
        folder.write_config(replace(config, autoencoder=autoencoder))
        findings = diagnose(folder)
        texts = [finding.text for finding in findings]
        assert any("trained without its codebooks" in text for text in texts) == is_problem
        assert (len(findings) == 1) == is_problem


def test_levels_are_not_judged_before_quantisation_begins(folder):
    config = folder.read()
    training = replace(config.autoencoder.training, steps=9)
    autoencoder = replace(config.autoencoder, training=training, continuous_steps=4)
    folder.write_config(replace(config, autoencoder=autoencoder))
    assert not any("without the codes of" in finding.text for finding in diagnose(folder))


def test_a_prior_suspiciously_near_0_is_a_problem():
    finding = judge_prior(0, [0.01], Measurement(0))
    assert finding.verdict == "problem"
    assert "suspiciously near 0" in finding.text


def test_an_overfitted_prior_is_a_warning():
    per_level = {"gap_nats_per_code": (1.0,), "train_nats_per_code": (2.0,)}
    finding = judge_prior(0, [3.0], Measurement(8, {}, per_level))
    assert finding.verdict == "warning"
    assert "overfitted" in finding.text
    assert "3.500 at the end" in judge_prior(0, [3.0, 3.5], Measurement(0)).text
    assert judge_prior(0, [3.0], Measurement(0)).verdict == "good"


def sample_metrics(num_features: int, **values: float) -> SampleMetrics:
    one = Measurement(10_000, values)
    origin = Provenance("", "", 16, 10_000, "", 0, (), {}, "")
    return SampleMetrics(
        "d", num_features, "Net", "d", "", (), "", one, one, {"1": one}, {}, origin
    )


def test_an_extractor_of_other_classes_is_a_problem():
    assert judge_extractor("Net", sample_metrics(64, class_accuracy=0.93), 10).verdict == "good"
    finding = judge_extractor("Net", sample_metrics(64, class_accuracy=0.1), 10)
    assert finding.verdict == "problem"
    assert "only 10 % of the validation images" in finding.text


def test_too_few_images_for_the_features_are_a_warning():
    finding = judge_extractor("Net", sample_metrics(8192), 10)
    assert finding.verdict == "warning"
    assert "too few for its 8,192 features" in finding.text
    assert "KID-Net" in finding.advice
    assert "16,384 images" in finding.advice


def test_every_part_of_a_complete_run_has_a_finding(runs):
    text = " ".join(finding.text for finding in diagnose(runs["complete"]))
    for part in (
        "autoencoder is done: 4 steps", "prior of level 1 is done", "without the codes of",
        "codes belong to the autoencoder", "prior of level 1:",
    ):  # fmt: skip
        assert part in text


def test_codes_and_priors_of_another_autoencoder_are_problems(folder):
    other = Pipeline.open(folder.path).autoencoder
    other.codebooks[0].vectors += 1
    save_autoencoder(folder.autoencoder, other)
    problems = [f.text for f in diagnose(folder) if f.verdict == "problem"]
    assert any("was made by autoencoder" in text for text in problems)
    assert any("was trained on the codes of" in text for text in problems)


def test_a_damaged_checkpoint_is_a_problem_and_an_unfinished_stage_a_warning(folder):
    shutil.rmtree(folder.prior(0))
    newest = saved_steps(folder.checkpoints("prior0"))[-1]
    newest.write_bytes(newest.read_bytes()[:-5])
    findings = diagnose(folder)
    assert any("damaged" in f.text for f in findings if f.verdict == "problem")
    warnings = [f.text for f in findings if f.verdict == "warning"]
    assert any("prior of level 0 is at step 2 of 4" in text for text in warnings)
