"""What each section shows, by what is done."""

import json
from dataclasses import replace

import pytest
import torch
from pages import ESCAPED, NAME, change_json, page_of, sections_of

from vqvae2.evaluation.evaluation import fingerprints
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.metrics.classifier import ClassifierTraining
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


def test_before_training_the_sections_name_the_command_to_run(runs, pages):
    sections = sections_of(pages["begun"])
    for name in ("reconstructions", "levels", "codebooks", "training", "samples"):
        assert f"run <code>vqvae2 train --run {runs['begun'].path}</code>" in sections[name]
    assert "<img" not in pages["begun"]


def test_an_autoencoder_alone_has_images_and_names_what_is_missing(pages):
    sections = sections_of(pages["autoencoder"])
    assert sections["reconstructions"].count("<img") == 2 * 16
    assert sections["levels"].count("<img") == 8 * (4 + 2)
    assert sections["training"].count("<svg") == 2
    assert "The codes are not extracted yet: run <code>vqvae2 train" in sections["codebooks"]
    assert "0 of 2 priors are trained: run <code>vqvae2 train" in sections["samples"]
    assert "Nothing was measured yet: run <code>vqvae2 evaluate" in sections["metrics"]


def test_a_complete_run_has_every_section(pages):
    page, sections = pages["complete"], sections_of(pages["complete"])
    assert page.count('class="note"') == 1
    assert "Samples were not measured yet: run <code>vqvae2 evaluate" in sections["quality"]
    assert sections["likelihoods"].count("<img") == 8 * (1 + 2) + 2
    assert sections["likelihoods"].count(" bits</div>") == 8
    assert sections["codebooks"].count("<svg") == 2
    assert sections["training"].count("<svg") == 4
    assert sections["samples"].count("<img") == 12 * 8
    assert "temperature 1, all codes" in sections["samples"]
    assert sections["health"].count("verdict") >= 8


def test_every_metric_of_the_run_is_in_the_tables(runs, pages):
    section, metrics = sections_of(pages["complete"])["metrics"], runs["complete"].read_metrics()
    for measurement in (metrics.reconstruction, metrics.priors):
        for name in (*measurement.values, *measurement.per_level):
            assert f"<code>{name}</code>" in section
    assert metrics.provenance.images_fingerprint in section


def test_the_top_shows_a_card_per_metric_and_level(pages):
    top = pages["complete"].split("<nav>")[0]
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


def test_without_classes_there_are_32_samples(folder):
    change_json(folder.model / "config.json", class_names=[])
    samples = sections_of(page_of(folder))["samples"]
    assert samples.count("<img") == 32
    assert "seeds 0 to 31" in samples


def test_without_the_images_of_the_run_the_other_sections_remain(folder, tmp_path):
    config = json.loads((folder.path / "config.json").read_text())
    data = {**config["data"], "source": str(tmp_path / "gone")}
    change_json(folder.path / "config.json", data=data)
    sections = sections_of(page_of(folder))
    assert "<img" not in sections["levels"]
    assert 'class="note"' in sections["levels"]
    assert sections["samples"].count("<img") == 12 * 8
