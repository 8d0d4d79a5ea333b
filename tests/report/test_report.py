"""The page as a whole: it needs no other file, whatever is done so far."""

import re
from types import SimpleNamespace

import pytest
from pages import (
    ESCAPED,
    NAME,
    ElementChecker,
    change_json,
    missing_of,
    page_of,
    sections_of,
)
from small_runs import small_run

from vqvae2.data.images import open_validation
from vqvae2.report import training_sections
from vqvae2.report.report import SECTIONS
from vqvae2.report.source import ReportSource
from vqvae2.runs.folder import RunFolder

STATES = ("begun", "autoencoder", "complete")


@pytest.mark.parametrize("state", STATES)
def test_the_page_needs_no_other_file(pages, state):
    page = pages[state]
    assert not re.search(r"https?://|<script|@import|url\((?!#)", page)
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(address.startswith(("data:", "#")) for address in addresses)


@pytest.mark.parametrize("state", STATES)
def test_every_element_is_closed_and_every_section_is_there_or_listed_as_missing(pages, state):
    checker = ElementChecker()
    checker.feed(pages[state])
    assert not checker.wrong
    assert not checker.open
    listed = re.findall("<li>([^:]*): ", missing_of(pages[state]))
    missing = {title for titles in listed for title in titles.split(", ")}
    present = {SECTIONS[anchor][0] for anchor in sections_of(pages[state])}
    assert present | missing == {title for title, _ in SECTIONS.values()}
    assert not present & missing


@pytest.mark.parametrize("state", STATES)
def test_no_section_is_empty(pages, state):
    for anchor, section in sections_of(pages[state]).items():
        assert re.search('<img|<svg|<table|<li|<details|<dl|class="card', section), anchor


def test_samples_and_the_verdict_come_first_and_plain_words_before_numbers(pages):
    page = pages["complete"]
    order = ['class="gallery"', 'class="findings"', "Time and settings", "<nav>", 'id="samples"']
    order += ['id="reconstructions"', 'id="health"', "For researchers", 'id="summary"']
    positions = [page.index(text) for text in order]
    assert positions == sorted(positions)


def test_a_phone_gets_all_of_a_table_and_images_that_can_be_judged(pages):
    """Rules that the screenshots were checked with."""
    style = pages["complete"].split("@media (max-width: 760px)")[1].split("@media print")[0]
    assert ".stacked td::before { content: attr(data-name)" in style
    assert "repeat(var(--columns), var(--phone-side))" in style
    assert "image-rendering: pixelated" in pages["complete"]
    assert 'data-name="all"' in sections_of(pages["complete"])["metrics"]


def test_images_and_plots_are_the_same_every_time(runs, pages):
    assert sections_of(page_of(runs["complete"])) == sections_of(pages["complete"])


def test_names_of_users_are_escaped(folder, monkeypatch):
    names = [NAME, *(f"class {number}" for number in range(11))]
    change_json(folder.path / "data.json", class_names=names, skipped=[f"{NAME}.png"])
    change_json(folder.model / "config.json", class_names=names)

    def renamed(config):
        validation = open_validation(config)
        validation.class_names = tuple(NAME for _ in names)
        return validation

    monkeypatch.setattr("vqvae2.report.source.open_validation", renamed)
    page = page_of(RunFolder(folder.path.rename(folder.path.with_name("<i>run & fun"))))
    sections = sections_of(page)
    assert "<b>" not in page
    assert "<i>run" not in page
    assert "<h1>&lt;i&gt;run &amp; fun</h1>" in page
    for name in ("reconstructions", "samples", "data"):
        assert ESCAPED in sections[name]
    assert f"<li>{ESCAPED}.png</li>" in sections["data"]


def test_a_stage_that_the_report_does_not_know_gets_a_curve_of_its_log(tmp_path, monkeypatch):
    """A new stage needs no change here."""
    folder = RunFolder(tmp_path)
    folder.write_config(small_run())
    for step in (1, 2):
        metrics = {"step_loss": 1 / step, "gradient_norm.decoder": 1.0}
        folder.log("sharpening").write(step, "train", metrics)
    unknown = SimpleNamespace(name="sharpening", title="sharpening")
    monkeypatch.setattr(training_sections, "stages", lambda config: [unknown])
    _, plots = training_sections.training(ReportSource(folder, "cpu"))
    (curve,) = plots.curves  # none of the gradient norm
    assert curve.title == "Sharpening: step loss"
    assert "step loss" in curve.plot
