"""What each section shows, by what is done."""

import json
import re
from dataclasses import replace

import pytest
import torch
from pages import ESCAPED, NAME, change_json, missing_of, page_of, sections_of, verdict_of

from vqvae2.evaluation.evaluation import Evaluation, fingerprints
from vqvae2.evaluation.validation import evaluate
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.metrics.classifier import ClassifierTraining
from vqvae2.metrics.describe import METRICS
from vqvae2.metrics.results import (
    AccuracyScore,
    ClassAccuracy,
    ClassAgreement,
    Detection,
    Measurement,
    OutOfDistribution,
    Provenance,
    RunMetrics,
    SampleMetrics,
)
from vqvae2.pipeline import Pipeline
from vqvae2.report.overview import training_seconds


def test_before_training_the_page_names_the_command_to_run(runs, pages):
    page = pages["begun"]
    assert tuple(sections_of(page)) == ("health", "data", "config")
    assert f"run <code>vqvae2 train --run {runs['begun'].path}</code>" in missing_of(page)
    assert "Unfinished: 0 of 4 stages are done" in verdict_of(page)
    assert "<img" not in page


def test_an_autoencoder_alone_has_images_and_names_what_is_missing(pages):
    page = pages["autoencoder"]
    sections, missing = sections_of(page), missing_of(page)
    assert sections["reconstructions"].count("<img") == 2 * 16
    assert sections["levels"].count("<img") == 8 * (4 + 2)
    assert sections["training"].count("<svg") == 2
    assert "Codes in use: The codes are not extracted yet: run <code>vqvae2 train" in missing
    assert "0 of 2 priors are trained: run <code>vqvae2 train" in missing
    assert "All metrics: Nothing was measured yet: run <code>vqvae2 evaluate" in missing
    assert 'class="pairs"' in page.split("<nav>")[0], "reconstructions where samples will be"
    assert "Unfinished: 1 of 4 stages are done" in verdict_of(page)
    assert "Reconstructions keep" in verdict_of(page)


def test_a_complete_run_has_every_section(pages):
    page, sections = pages["complete"], sections_of(pages["complete"])
    assert 'class="note"' not in page
    assert "Quality of the samples: Samples were not measured yet" in missing_of(page)
    assert sections["likelihoods"].count("<img") == 8 * (1 + 2) + 2
    assert sections["likelihoods"].count(" bits</div>") == 8
    assert sections["codebooks"].count("<svg") == 2
    assert sections["training"].count("<svg") == 4
    assert sections["samples"].count("<img") == 12 * 8
    assert "temperature 1, all codes" in sections["samples"]
    assert sections["health"].count("verdict") >= 8
    assert page.split("<nav>")[0].count("<img") == 16


def test_the_verdict_is_in_plain_words_with_a_command_that_needs_no_download(pages):
    verdict = verdict_of(pages["complete"])
    assert "Finished: everything is trained" in verdict
    assert re.search("PSNR [0-9.]+ dB on all 18 validation images", verdict)
    assert "Many codes are unused" in verdict or "Nearly all codes are in use" in verdict
    assert "of the bits that they would take" in verdict
    assert "evaluate --samples 222 --extractor own" in verdict


def test_every_count_of_images_is_named(folder):
    """The cards and the doctor may have counted different images."""
    evaluate(Evaluation.open(folder), limit=10)
    sections = sections_of(page_of(folder))
    assert "Measured on 10 of the 18 validation images" in sections["summary"]
    assert "codes on all 18 validation images" in sections["health"]
    assert "on 10 validation images" in sections["health"]


def test_the_time_of_each_stage_is_at_the_top(pages):
    top = pages["complete"].split("<nav>")[0]
    for text in ("Autoencoder", "Prior of level 1", "All steps"):
        assert f'<td data-name="">{text}</td>' in top
    lines = [{"step": 10, "examples_per_second": 5.0}, {"step": 30, "examples_per_second": 20.0}]
    assert training_seconds(lines, batch=4) == 10 * 4 / 5 + 20 * 4 / 20


def test_columns_of_metrics_are_explained(folder, measured):
    folder.write_metrics(measured)
    quality = sections_of(page_of(folder))["quality"]
    assert f'title="{METRICS["recall"].explanation}"' in quality
    assert f"<dd>{METRICS['kid'].explanation}</dd>" in quality


def test_every_metric_of_the_run_is_in_the_tables(runs, pages):
    section, metrics = sections_of(pages["complete"])["metrics"], runs["complete"].read_metrics()
    for measurement in (metrics.reconstruction, metrics.priors):
        measured = [name for name, value in measurement.values.items() if value is not None]
        for name in (*measured, *measurement.per_level):
            assert f"<code>{name}</code>" in section
    assert metrics.provenance.images_fingerprint in section


def test_the_short_metrics_are_a_card_each_and_one_per_level(pages):
    top = sections_of(pages["complete"])["summary"]
    assert top.count('class="card"') == 4
    assert top.count('class="card level"') == 2
    assert "of 16 codes used" in top
    assert "2.773 if all codes were equally likely" in top


@pytest.fixture
def measured(folder) -> RunMetrics:
    """The metrics of the run, with samples measured by every instrument."""
    metrics = folder.read_metrics()
    assert metrics.provenance.models == fingerprints(Pipeline.open(folder.path))
    return replace(
        metrics,
        samples={"Net": sample_metrics(metrics.provenance)},
        accuracy_score=accuracy_score(metrics.provenance),
        out_of_distribution={
            "Other": OutOfDistribution(
                9, 8, {"all codes": Detection(0.812, 1.0, 0.0)}, metrics.provenance
            )
        },
        class_agreement=ClassAgreement(
            0.987, 0.933, 0.787, 300, ClassifierTraining(), metrics.provenance
        ),
    )


def sample_metrics(origin: Provenance) -> SampleMetrics:
    def values(**changes: float) -> Measurement:
        metrics = {
            "fid": 10.0, "kid": 0.01, "kid_deviation": 0.001, "precision": 0.5, "recall": 0.25,
            "inception_score": 7.0, "inception_score_deviation": 0.1, "class_accuracy": 0.75,
        }  # fmt: skip
        return Measurement(100, {**metrics, **changes})

    return SampleMetrics(
        digest="d", num_features=8, selector="Net", selector_digest="d", preprocessing="",
        sampling=(), seeds="", provenance=origin, validation=values(),
        reconstructions=values(fid_against_originals=9.5),
        by_fraction={"1": values(), "0.5": values(fid=8.0), "0.1": values()},
        by_temperature={"0.8": values(recall=0.2)},
    )  # fmt: skip


def accuracy_score(origin: Provenance) -> AccuracyScore:
    accuracy = ClassAccuracy(0.6, (None, 0.7))
    tested = {"real": accuracy, "reconstructions": accuracy}
    training = ClassifierTraining(depth=20, steps=5, batch=8)
    return AccuracyScore(100, training, ("cat", NAME), {"real": tested, "samples": tested}, origin)


def test_the_quality_of_samples_is_shown_by_every_instrument(folder, measured):
    folder.write_metrics(measured)
    save_png(folder.neighbours("Net"), to_pil(torch.rand(3, 8, 8)))
    sections = sections_of(page_of(folder))
    quality = sections["quality"]
    for text in ("FID-Net", "best 50 % of samples", "8.00", "9.50", ESCAPED, "0.812", "78.7 %"):
        assert text in quality
    assert "Models were trained after" not in quality
    assert quality.count("<svg") == 4
    assert quality.count("<img") == 1
    assert "validation_nats" in sections["metrics"]
    assert "class_accuracy" not in sections["metrics"], "samples have their own section"
    assert "samples were measured with Net" in sections["health"]


def test_results_of_other_weights_are_named(folder, measured):
    origin = replace(measured.provenance, models=("others",))
    samples = replace(measured.samples["Net"], provenance=origin)
    folder.write_metrics(replace(measured, samples={"Net": samples}))
    sections = sections_of(page_of(folder))
    assert "Models were trained after some of these evaluations" in sections["quality"]
    assert "belongs to other weights" in sections["health"]


def test_metrics_older_than_the_priors_are_named(folder):
    folder.write_metrics(replace(folder.read_metrics(), priors=None))
    assert page_of(folder).count("Priors were trained after this evaluation") == 2


def test_measured_samples_are_in_the_verdict(folder, measured):
    folder.write_metrics(measured)
    verdict = verdict_of(page_of(folder))
    assert "FID-Net of 100 samples is 10.0, of reconstructions 10.0" in verdict
    assert "It recognises the requested class in 75 % of the samples" in verdict
    assert "recognises the requested class in 78.7 % of 300 samples" in verdict
    assert "not measured yet" not in verdict


def test_without_classes_there_are_32_samples(folder):
    change_json(folder.model / "config.json", class_names=[])
    samples = sections_of(page_of(folder))["samples"]
    assert samples.count("<img") == 32
    assert "seeds 0 to 31" in samples


def test_without_the_images_of_the_run_the_other_sections_remain(folder, tmp_path):
    config = json.loads((folder.path / "config.json").read_text())
    data = {**config["data"], "source": str(tmp_path / "gone")}
    change_json(folder.path / "config.json", data=data)
    page = page_of(folder)
    sections = sections_of(page)
    assert "levels" not in sections
    assert "What each level contributes" in missing_of(page)
    assert "gone" in missing_of(page)
    assert sections["samples"].count("<img") == 12 * 8
