"""`vqvae2 app` before there is a page."""

import pytest
from commands import error_of

from vqvae2.cli import app


def test_without_gradio_one_line_names_the_extra(capsys, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert "pip install 'vqvae2[app]'" in error_of(capsys, "app", "run")


def test_without_a_model_one_line_says_what_to_name(capsys, monkeypatch):
    monkeypatch.setattr(app, "find_spec", lambda name: object())
    monkeypatch.setattr(app, "pretrained_names", lambda: [])
    assert "name a run folder" in error_of(capsys, "app")
    monkeypatch.setattr(app, "pretrained_names", lambda: ["cifar10", "other"])
    assert app.default_model() == "cifar10"
    monkeypatch.setattr(app, "pretrained_names", lambda: ["other"])
    assert app.default_model() == "other"


def test_a_folder_without_a_model_is_one_line(capsys, tmp_path):
    pytest.importorskip("gradio", reason="the app needs gradio")
    assert "does not contain a trained model" in error_of(capsys, "app", tmp_path)
    assert "set a password" in error_of(capsys, "app", tmp_path, "--host", "0.0.0.0")
