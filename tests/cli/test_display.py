import io
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqvae2.cli import display
from vqvae2.cli.display import LossTrend, fitting_parts, monitor, validation_text
from vqvae2.training.session import Event


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time, in seconds, as the display reads it; it stands still until a test moves it."""
    now = [0.0]
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_the_time_of_a_stage_begins_when_the_work_before_it_ends(clock):
    with monitor(is_visible=False) as view:
        clock[0] = 3.0
        view.track("decoding", 1, 1)
        for clock[0], stage in [(63.0, "prior0"), (103.0, "prior0"), (104.0, "codes")]:
            view.show(Event(stage, 1, 2))
    # The first step took a minute because it was compiled; it belongs to the stage.
    assert view.seconds == {"prior0": 100.0, "codes": 1.0}


def test_stages_that_report_metrics_have_trained(clock):
    with monitor(is_visible=False) as view:
        view.show(Event("codes", 1, 2))
        assert not view.has_trained
        view.show(Event("prior0", 1, 2, {"nats_per_code": 1.0}))
        assert view.has_trained


def test_without_a_terminal_a_line_is_printed_from_time_to_time(clock, capsys):
    with monitor() as view:
        for clock[0], done in [(0.0, 0), (20.0, 10), (40.0, 20)]:
            view.track("samples", done, 100)
    assert capsys.readouterr().out == "samples  20/100  2.7 min left\n"


def test_a_terminal_shows_that_work_without_a_bar_goes_on(clock, monkeypatch):
    monkeypatch.setattr(display.console, "_force_terminal", True)
    monkeypatch.setattr(display.console, "_file", io.StringIO())
    with monitor() as view:
        view.track("decoding", 1, 2)
        clock[0] = 1.0
        assert "working" not in drawn(view)
        clock[0] = 7.0
        assert "working, 7 s" in drawn(view)
        view.track("decoding", 2, 2)
        assert "working" not in drawn(view)
        clock[0] = 20.0
    assert "working" not in drawn(view), "nothing of it stays"


def drawn(view: display.Monitor) -> str:
    """What the bars show now."""
    return " ".join(text for text in view.progress.get_renderables() if isinstance(text, str))


def test_lines_break_between_words_on_a_terminal_and_not_in_a_pipe(monkeypatch, capsys):
    text = "a sentence of words that is longer than the width of the terminal"
    monkeypatch.setattr(display.console, "_width", 30)
    display.console.print(text)
    assert capsys.readouterr().out == f"{text}\n"
    monkeypatch.setattr(display.console, "_force_terminal", True)
    display.console.print(text)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(line.strip() for line in lines) == text
    assert len(lines) == 3


def test_the_reasons_of_images_that_cannot_be_used_are_printed(capsys):
    display.show_skipped({f"{number}.png": "too small" for number in range(25)})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "skipped 0.png: too small"
    assert (len(lines), lines[-1]) == (21, "and 5 more")


def test_a_bar_shows_the_loss_and_whether_it_falls(clock, capsys):
    with monitor() as view:
        for step in range(40):
            clock[0] = 10.0 * step
            metrics = {"nats_per_code": 5.0 - 0.05 * step, "gradient_norm.prior": 1.0}
            view.show(Event("prior0", step, 300, metrics, examples_per_second=20.0))
        for step in range(40, 300):
            clock[0] = 10.0 * step
            view.show(Event("prior0", step, 300, {"nats_per_code": 3.0}))
    first, *_, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"prior0  3/300  nats per code 4.9\d?, .*20 images/s  .* left", first)
    assert "nats per code 3, level" in last


def test_a_loss_trend_names_its_direction():
    trends = {"falling": -0.1, "level": 0.0, "rising": 0.1}
    for word, slope in trends.items():
        trend = LossTrend()
        for step in range(50):
            trend.add({"mse": 10 + slope * step})
        assert trend.text().endswith(word)
    assert LossTrend().text() == ""
    unknown = LossTrend()
    unknown.add({"discriminator": 1.0})
    assert unknown.text() == ""


def test_the_important_validation_metrics_are_named_in_words():
    metrics = {"mse": 0.0123456, "share_used.0": 0.98, "share_used.1": 1.0, "other": 3.0}
    assert validation_text(metrics) == "MSE 0.01235  codes used 98 %, 100 %"
    assert validation_text({"nats_per_code": 2.5}) == "nats per code 2.5"


@given(st.integers(60, 200))
def test_a_wide_table_comes_in_parts_that_fit_without_shortening_a_number(width):
    columns = ["set", *(f"FID-ResNet{number}" for number in range(12))]
    rows = [[f"best {n} % of samples", *(f"{number}.25" for number in range(12))] for n in (1, 50)]
    parts = fitting_parts(columns, rows, width)
    assert [number for part in parts for number in part[1:]] == [*range(1, 13)]
    for part in parts:
        assert part[0] == 0, "each part names its rows"
        cells = [max(len(columns[n]), *(len(row[n]) for row in rows)) for n in part]
        assert sum(cells) + 3 * len(part) <= width or len(part) == 2


def test_a_printed_table_contains_every_cell(monkeypatch, capsys):
    monkeypatch.setattr(display.console, "_width", 80)
    columns = ["set", *(f"metric {number}" for number in range(20))]
    display.table("title", columns, [["samples", *(f"{number}.123" for number in range(20))]])
    printed = capsys.readouterr().out
    assert all(f"{number}.123" in printed for number in range(20))
    assert "…" not in printed


def test_each_part_names_its_rows_by_as_many_columns_as_tell_them_apart():
    columns = ["model", "side", "speed", "share of the peak", "memory"]
    rows = [["autoencoder", f"{side}", "1.0", "0.5", "100"] for side in (32, 64)]
    assert fitting_parts(columns, rows, 34) == [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
    assert fitting_parts(columns, rows[:1] * 2, 34)[0][0] == 0, "equal rows have no names"
