"""The report of a run: one page that needs nothing else, whatever is done so far."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from small_runs import session

from vqvae2.data.images import open_validation
from vqvae2.evaluation.evaluation import evaluate, fingerprints
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png
from vqvae2.metrics.accuracy_score import ClassifierTraining
from vqvae2.metrics.results import (
    AccuracyScore,
    ClassAccuracy,
    Detection,
    Measurement,
    OutOfDistribution,
    SampleMetrics,
)
from vqvae2.metrics.usage import CodeUsage
from vqvae2.pipeline import Pipeline
from vqvae2.report import plots
from vqvae2.report.formatting import embedded_image, figure
from vqvae2.report.report import write_report
from vqvae2.runs.config import LevelConfig, RunConfig
from vqvae2.runs.folder import RunFolder
from vqvae2.runs.presets import demo
from vqvae2.training.stages import prepare, train

VOID = {"meta", "link", "img", "br", "path", "use"}
SECTIONS = (
    "reconstructions", "levels", "codebooks", "training", "samples", "quality", "surprise",
    "figures", "health", "data", "config",
)  # fmt: skip
STRANGE = "<b>cat & dog</b>"
ESCAPED = "&lt;b&gt;cat &amp; dog&lt;/b&gt;"


def tiny() -> RunConfig:
    run = demo()
    training = replace(
        run.autoencoder.training, steps=4, batch=8, validate_every=2, validation_examples=16,
        log_every=1,
    )  # fmt: skip
    prior = {"channels": 16, "residual_channels": 16, "num_layers": 2, "num_output_blocks": 1}
    codebook = replace(run.autoencoder.model.codebooks[0], num_codes=16, code_size=8)
    model = replace(run.autoencoder.model, channels=16, residual_channels=8, codebooks=(codebook,))
    levels = tuple(
        LevelConfig(
            prior=replace(level.prior, num_conditioning_blocks=1, **prior), training=training
        )
        for level in run.levels
    )
    return replace(
        run,
        data=replace(run.data, size=16, synthetic_images=240),
        autoencoder=replace(run.autoencoder, model=model, training=training, continuous_steps=2),
        levels=levels,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run after nothing, after the autoencoder, and after everything."""
    run, root = tiny(), tmp_path_factory.mktemp("runs")
    training = session(root / "done", run)
    prepare(training)
    shutil.copytree(root / "done", root / "begun")
    list(train(training, lambda stage: stage.group == "autoencoder"))
    shutil.copytree(root / "done", root / "autoencoder")
    list(train(training))
    evaluate(training.folder, limit=24)
    return {name: root / name for name in ("begun", "autoencoder", "done")}


@pytest.fixture
def done(runs: dict[str, Path], tmp_path: Path) -> RunFolder:
    """A copy of the complete run, to be changed."""
    return RunFolder(Path(shutil.copytree(runs["done"], tmp_path / "copy")))


def page_of(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def sections_of(page: str) -> dict[str, str]:
    found = re.findall(r'<section id="(\w+)">(.*?)</section>', page, flags=re.DOTALL)
    return dict(found)


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class Balanced(HTMLParser):
    """Notes every element that is closed where it was not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


@pytest.mark.parametrize("stage", ["begun", "autoencoder", "done"])
def test_the_page_needs_nothing_but_itself(runs: dict[str, Path], stage: str) -> None:
    page = page_of(RunFolder(runs[stage]))
    assert not re.search(r"https?://|<script|@import|url\((?!#)", page)
    linked = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#")) for link in linked)


@pytest.mark.parametrize("stage", ["begun", "autoencoder", "done"])
def test_every_element_is_closed_and_every_section_is_there(
    runs: dict[str, Path], stage: str
) -> None:
    page = page_of(RunFolder(runs[stage]))
    parser = Balanced()
    parser.feed(page)
    assert not parser.wrong
    assert not parser.open
    assert tuple(sections_of(page)) == SECTIONS


def test_a_run_that_was_only_begun_says_what_to_run(runs: dict[str, Path]) -> None:
    page = page_of(RunFolder(runs["begun"]))
    for name in ("reconstructions", "levels", "codebooks", "training", "samples"):
        assert f"run `vqvae2 train --run {runs['begun']}`" in sections_of(page)[name]
    assert "<img" not in page


def test_after_stage_1_there_are_images_and_what_is_missing_is_said(
    runs: dict[str, Path],
) -> None:
    page = sections_of(page_of(RunFolder(runs["autoencoder"])))
    assert page["reconstructions"].count("<img") == 2 * 16
    assert page["levels"].count("<img") == 8 * (4 + 2)
    assert page["training"].count("<svg") == 2
    assert "The codes are not extracted yet: run `vqvae2 train" in page["codebooks"]
    assert "0 of 2 priors are trained: run `vqvae2 train" in page["samples"]
    assert "Nothing was measured yet: run `vqvae2 evaluate" in page["figures"]


def test_a_complete_run_shows_everything(runs: dict[str, Path]) -> None:
    page = page_of(RunFolder(runs["done"]))
    sections = sections_of(page)
    assert page.count('class="note"') == 1
    assert "Samples were not measured yet: run `vqvae2 evaluate --samples" in sections["quality"]
    assert sections["surprise"].count("<img") == 8 * (1 + 2) + 2
    assert sections["surprise"].count(" bits</div>") == 8
    assert sections["codebooks"].count("<svg") == 2
    assert sections["training"].count("<svg") == 4
    assert sections["samples"].count("<img") == 12 * 8
    assert "temperature 1, all codes" in sections["samples"]
    assert sections["health"].count("verdict") >= 8
    metrics = RunFolder(runs["done"]).read_metrics()
    for group in ("reconstruction", "priors"):
        measured = getattr(metrics, group)
        for name in (*measured.values, *measured.per_level):
            assert f"<code>{name}</code>" in sections["figures"]
    assert metrics.provenance.images_fingerprint in sections["figures"]


def test_what_was_measured_of_samples_is_shown(done: RunFolder) -> None:
    values = {
        "fid": 10.0, "kid": 0.01, "kid_deviation": 0.001, "precision": 0.5, "recall": 0.25,
        "inception_score": 7.0, "inception_score_deviation": 0.1, "class_accuracy": 0.75,
    }  # fmt: skip
    origin = done.read_metrics().provenance
    assert origin is not None
    assert origin.models == tuple(fingerprints(Pipeline.open(done.path)))

    def measured(**changed: float) -> Measurement:
        return Measurement(100, {**values, **changed})

    samples = SampleMetrics(
        digest="d", num_features=8, selector="Net", selector_digest="d", preprocessing="",
        sampling=(), seeds="", provenance=origin, validation=measured(),
        reconstructions=measured(fid_against_originals=9.5),
        by_fraction={"1": measured(), "0.5": measured(fid=8.0), "0.1": measured()},
        by_temperature={"0.8": measured(recall=0.2)},
    )  # fmt: skip
    accuracy = ClassAccuracy(0.6, (None, 0.7))
    tested = {"real": accuracy, "reconstructions": accuracy}
    trained_on = {"real": tested, "samples": tested}
    training = ClassifierTraining(depth=20, steps=5, batch=8)
    score = AccuracyScore(100, training, ("cat", STRANGE), trained_on, origin)
    detection = OutOfDistribution(9, 9, {"all codes": Detection(0.812, 1.0, 0.0)}, origin)
    metrics = replace(
        done.read_metrics(),
        samples={"Net": samples},
        accuracy_score=score,
        out_of_distribution={"Other": detection},
    )
    done.write_metrics(metrics)
    save_png(done.neighbours("Net"), to_pil(torch.rand(3, 8, 8)))
    shown = sections_of(page_of(done))
    part = shown["quality"]
    assert "FID-Net" in part
    assert "best 50 % of samples" in part
    assert "8.00" in part
    assert "9.50" in part
    assert "Models were trained since" not in part
    assert part.count("<svg") == 4
    assert part.count("<img") == 1
    assert ESCAPED in part
    assert "0.812" in part
    assert "validation_nats" in shown["figures"]
    assert "class_accuracy" not in shown["figures"], "it has a section of its own"
    assert "samples were measured with Net" in shown["health"]
    others = replace(samples, provenance=replace(origin, models=("others",)))
    done.write_metrics(replace(metrics, samples={"Net": others}))
    shown = sections_of(page_of(done))
    assert "Models were trained since" in shown["quality"]
    assert "what Net measured is of other weights" in shown["health"]


def test_figures_older_than_the_priors_are_told(done: RunFolder) -> None:
    done.write_metrics(replace(done.read_metrics(), priors=None))
    assert page_of(done).count("Priors were trained since these figures were taken") == 2


def test_names_of_users_are_escaped(done: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [STRANGE, *(f"class {number}" for number in range(11))]
    change(done.path / "data.json", class_names=names, skipped=[f"{STRANGE}.png"])
    change(done.model / "config.json", class_names=names)

    def renamed(config: object) -> object:
        validation = open_validation(config)
        validation.class_names = tuple(STRANGE for _ in names)
        return validation

    monkeypatch.setattr("vqvae2.report.sections.open_validation", renamed)
    named = RunFolder(done.path.rename(done.path.with_name("<i>run & fun")))
    page = page_of(named)
    sections = sections_of(page)
    assert "<b>" not in page
    assert "<i>run" not in page
    assert "<h1>&lt;i&gt;run &amp; fun</h1>" in page
    for name in ("reconstructions", "samples", "data"):
        assert ESCAPED in sections[name]
    assert f"<li>{ESCAPED}.png</li>" in sections["data"]


def test_images_and_plots_are_the_same_every_time(runs: dict[str, Path]) -> None:
    folder = RunFolder(runs["done"])
    first, second = sections_of(page_of(folder)), sections_of(page_of(folder))
    assert first == second


def test_without_classes_there_are_32_samples(done: RunFolder) -> None:
    change(done.model / "config.json", class_names=[])
    samples = sections_of(page_of(done))["samples"]
    assert samples.count("<img") == 32
    assert "seeds 0 to 31" in samples


def test_images_that_have_moved_away_leave_the_rest_standing(
    done: RunFolder, tmp_path: Path
) -> None:
    config = json.loads((done.path / "config.json").read_text())
    change(done.path / "config.json", data={**config["data"], "source": str(tmp_path / "gone")})
    sections = sections_of(page_of(done))
    assert "<img" not in sections["levels"]
    assert 'class="note"' in sections["levels"]
    assert sections["samples"].count("<img") == 12 * 8


def test_large_images_are_stored_small() -> None:
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert embedded_image(noise, "").source.startswith("data:image/jpeg;base64,")
    assert embedded_image(noise[:, :64, :64], "").source.startswith("data:image/png;base64,")


@pytest.mark.parametrize("counts", [[0] * 8, [5] + [0] * 7, [1] * 8, list(range(8))])
def test_any_codebook_can_be_drawn_in_the_colours_of_the_page(counts: list[int]) -> None:
    drawn = plots.codebook_plot(CodeUsage(torch.tensor(counts)), 0)
    assert drawn.startswith("<svg")
    assert not re.search("#[0-9a-f]{6}", drawn)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.00481234, "0.004812"),
        (125.0, "125"),
        (1135680, "1,135,680"),
        (22.3456, "22.35"),
        (float("nan"), "nan"),
        ([0.5, 2.0], "0.5, 2"),
        ("torch", "torch"),
    ],
)
def test_figures_read_well(value: object, shown: str) -> None:
    assert figure(value) == shown
