"""What the tabs compute, without a browser: models of every kind, and wrong input as one line."""

import base64
import html
import io
import re
import shutil

import pytest
import torch
from PIL import Image
from small_runs import small_run
from tiny_pipelines import KINDS, codes_pipeline

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'vqvae2[app]'")

from vqvae2.app import sample
from vqvae2.app.canvas import Canvas, code_painter, mask_painter, paint_grid
from vqvae2.app.edit import chosen_variation, mixed_levels, redraw, views, with_painted_codes
from vqvae2.app.errors import gr, with_one_line_errors
from vqvae2.app.likelihood import measure
from vqvae2.app.models import Catalogue
from vqvae2.app.reconstruct import reconstruct
from vqvae2.app.runs import health, progress, report, same_seeds
from vqvae2.app.sample import restored, sample_pictures, selected_image
from vqvae2.imaging.uploads import UploadLimits, upload_settings
from vqvae2.runs.folder import RunFolder

LIMITS = UploadLimits()
DRAWING = [kind for kind in KINDS if kind != "no priors"]
NEUTRAL = (1.0, 0, 1.0, 1.0) * 3


def draw(pipeline, label, seed, count, controls, source):
    return sample.draw(pipeline, label, (seed, count), controls, source)


def label_for(pipeline):
    return pipeline.config.class_names[-1] if pipeline.config.class_names else None


def images_in(text: str) -> list[bytes]:
    """The files of the images in a piece of HTML."""
    return [base64.b64decode(code) for code in re.findall(r"base64,([A-Za-z0-9+/=]+)", text)]


@pytest.mark.parametrize("kind", DRAWING)
def test_a_model_of_any_kind_draws_what_the_library_draws(kind):
    pipeline = KINDS[kind]()
    *_, (status, page, samples) = draw(pipeline, label_for(pipeline), 3, 2, NEUTRAL, "mine")
    expected = pipeline.sample([label_for(pipeline) or 0] * 2, seeds=[3, 4])
    assert samples.images.equal(expected.images)
    assert "Done: 2 images" in status
    files = images_in(page)
    assert len(files) == 2
    assert upload_settings(files[0])["seed"] == 3
    assert page.count("aria-pressed") == 2
    assert page.count('alt="') == 2


@pytest.mark.parametrize("kind", DRAWING)
def test_a_downloaded_image_restores_the_controls_that_made_it(kind):
    pipeline = KINDS[kind]()
    levels = len(pipeline.priors)
    controls = (0.5, 3, 0.75, 1.0) * levels
    *_, (_, page, samples) = draw(pipeline, label_for(pipeline), 9, 1, controls, "mine")
    label, seed, decoder, *values = restored(images_in(page)[0], pipeline, LIMITS)
    assert (label, seed) == (label_for(pipeline), 9)
    assert decoder == pipeline.decoder_in_use
    assert tuple(values) == controls
    *_, (_, _, again) = draw(pipeline, label, seed, 1, tuple(values), "mine")
    assert again.images.equal(samples.images)


def test_settings_of_another_model_are_refused_with_the_reason():
    two = codes_pipeline()
    file = images_in(last_of(draw(two, "cat", 0, 1, NEUTRAL, "x"))[1])[0]
    with pytest.raises(ValueError, match="Unknown class 'cat'"):
        restored(file, codes_pipeline(classes=("owl", "fox")), LIMITS)
    with pytest.raises(ValueError, match="of a model with 2 levels; this one has 3"):
        restored(file, codes_pipeline((2, 2, 2)), LIMITS)
    sharp = images_in(last_of(draw(codes_pipeline(sharp=True), "cat", 0, 1, NEUTRAL, "x"))[1])[0]
    with pytest.raises(ValueError, match="no sharp decoder"):
        restored(sharp, two, LIMITS)


def last_of(items):
    *_, last = items
    return last


@pytest.mark.parametrize(
    ("label", "seed", "count", "message"),
    [
        ("dof", 0, 1, "did you mean dog"),
        (None, 0, 1, "Choose a class first"),
        ("dog", -1, 1, "The seed must be a whole number"),
        ("dog", None, 1, "The seed must be a whole number"),
        ("dog", float("nan"), 1, "The seed must be a whole number"),
        ("dog", 0, 65, "from 1 to 64, got 65"),
        ("dog", 0, 1.5, "must be a whole number"),
    ],
)
def test_wrong_controls_are_one_clear_line(label, seed, count, message):
    with pytest.raises(ValueError, match=message):
        list(draw(codes_pipeline(), label, seed, count, NEUTRAL, "mine"))


def test_without_priors_tabs_say_what_to_do(picture):
    pipeline = KINDS["no priors"]()
    assert "vq-compare" in reconstruct(pipeline, picture)
    canvas = Canvas.of(pipeline, picture)
    requests = [
        lambda: list(draw(pipeline, "cat", 0, 1, NEUTRAL, "mine")),
        lambda: list(redraw(pipeline, canvas, {"cells": [[0, 0]]}, "cat", [0, 1, 0])),
        lambda: measure(pipeline, "cat", {"first": picture}),
    ]
    for request in requests:
        with pytest.raises(ValueError, match=r"Needs the priors of all 2 levels.*repeat"):
            request()


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_reconstructed_by_every_kind_of_model(kind, picture):
    pipeline = KINDS[kind]()
    page = reconstruct(pipeline, picture)
    assert page.count("vq-pair") == (3 if kind == "sharp decoder" else 1)
    levels = pipeline.autoencoder.config.num_levels
    assert ("What each level carries alone" in page) == (levels > 1)
    assert ("PSNR" in page) == (kind != "pixels")
    for image in images_in(page):
        Image.open(io.BytesIO(image)).load()
    with pytest.raises(ValueError, match="Choose an image first"):
        reconstruct(pipeline, None)


@pytest.mark.parametrize("kind", DRAWING)
def test_a_painted_part_is_drawn_again_and_the_rest_stays(kind, picture):
    pipeline = KINDS[kind]()
    canvas = Canvas.of(pipeline, picture)
    painter = mask_painter(pipeline, canvas)
    rows, columns = painter["rows"], painter["columns"]
    assert (rows, columns) == paint_grid(pipeline)
    lower = [[row, column] for row in range(rows // 2, rows) for column in range(columns)]
    painted = {**painter, "cells": lower}
    request = (pipeline, canvas, painted, label_for(pipeline), [0, 3, 5])
    status, page, samples = last_of(redraw(*request))
    assert len(samples) == 3
    assert "Done: 3 images" in status
    assert len(images_in(page)) == 3
    kept = samples.codes[-1][:, : rows // 2]
    assert (kept == kept[:1]).all()
    edited = chosen_variation(canvas, samples, 1)
    assert edited.codes[-1].equal(samples.codes[-1][1:2])
    assert edited.undone().codes[-1].equal(canvas.codes[-1])
    assert edited.undone().original is canvas.original
    # What was sampled is edited by its codes.
    again = last_of(redraw(pipeline, edited, painted, label_for(pipeline), [0, 1, 8]))[2]
    assert again.codes[-1][:, : rows // 2].equal(edited.codes[-1][:, : rows // 2])


def test_wrong_edits_are_one_clear_line(picture):
    pipeline = codes_pipeline()
    canvas = Canvas.of(pipeline, picture)
    for painted in (None, {}, {"cells": []}, {"cells": 7}, "text"):
        with pytest.raises(ValueError, match="Nothing is painted"):
            list(redraw(pipeline, canvas, painted, "cat", [0, 1, 0]))
    for cell in ([9, 0], [-1, 0], ["0", 0], [0], 5):
        with pytest.raises(ValueError, match="does not fit this model"):
            list(redraw(pipeline, canvas, {"cells": [cell]}, "cat", [0, 1, 0]))
    with pytest.raises(ValueError, match="kept levels must be a whole number from 0 to 1, got 2"):
        list(redraw(pipeline, canvas, {"cells": [[0, 0]]}, "cat", [2, 1, 0]))
    with pytest.raises(ValueError, match="Choose an image first"):
        mixed_levels(pipeline, None, picture, [1])
    with pytest.raises(ValueError, match="Choose a second image first"):
        mixed_levels(pipeline, canvas, None, [1])
    with pytest.raises(ValueError, match="at least one level"):
        mixed_levels(pipeline, canvas, picture, [])
    with pytest.raises(ValueError, match="nothing to undo"):
        canvas.undone()
    for painted in (None, {}, {"changes": {}}, {"changes": {"0,0": 1}}):
        with pytest.raises(ValueError, match="No code is changed"):
            with_painted_codes(pipeline, canvas, painted)
    for changes in ({"a": 1}, {"0,0": "1"}, {"0": 1}):
        with pytest.raises(ValueError, match="damaged"):
            with_painted_codes(pipeline, canvas, {"level": 0, "changes": changes})
    with pytest.raises(ValueError, match="24 codes"):
        with_painted_codes(pipeline, canvas, {"level": 0, "changes": {"0,0": 24}})


def test_levels_are_mixed_and_codes_are_put_on_a_map(picture, catalogue):
    models = catalogue("two levels")
    pipeline = models.pipeline("two levels")
    canvas = Canvas.of(pipeline, picture)
    other = pipeline.encode(picture.rotate(180))
    result = mixed_levels(pipeline, canvas, picture.rotate(180), [1])
    assert [result.codes[0].equal(canvas.codes[0]), result.codes[1].equal(other[1])] == [True] * 2
    painter = code_painter(pipeline, canvas, 1, models.patches("two levels", 1))
    assert (painter["rows"], painter["columns"], painter["count"]) == (4, 4, 24)
    assert torch.tensor(painter["codes"]).equal(canvas.codes[1][0])
    code = (painter["codes"][0][2] + 1) % 24
    changed = with_painted_codes(pipeline, canvas, {**painter, "changes": {"0,2": code}})
    assert changed.codes[1][0, 0, 2] == code
    assert (changed.codes[1] != canvas.codes[1]).sum() == 1


def test_pixels_have_a_mask_but_no_palette(picture, catalogue):
    models = catalogue("pixels")
    canvas = Canvas.of(models.pipeline("pixels"), picture)
    _, mask, codes = views(models, "pixels", canvas, 0, 0)
    assert mask["rows"] == 8
    assert codes is None


@pytest.mark.parametrize("kind", DRAWING)
def test_the_likelihood_of_two_images_is_compared(kind, picture):
    pipeline = KINDS[kind]()
    label = label_for(pipeline)
    images = {"first image": picture, "second image": picture.rotate(90)}
    page = measure(pipeline, label, images)
    nats = pipeline.surprise(list(images.values()), [label or 0] * 2)
    assert page.count("<i ") == sum(maps.numel() for maps in nats)
    assert f"{float(nats[0][0, 0, 0]):.2f} nats, code" in page
    assert "more probable than" in page
    assert "more probable than" not in measure(pipeline, label, {"first image": picture})
    with pytest.raises(ValueError, match="Choose an image first"):
        measure(pipeline, label, {"first image": None})


def test_names_from_data_are_escaped(tmp_path):
    name = "<img src=x onerror=alert(1)>"
    pipeline = codes_pipeline(classes=(name, '"><script>'))
    page = last_of(draw(pipeline, name, 0, 1, NEUTRAL, name))[1]
    assert name not in page
    assert html.escape(name) in page

    def fail():
        raise ValueError(name)

    with pytest.raises(gr.Error) as error:
        with_one_line_errors(fail)()
    assert error.value.message == f"{html.escape(name)}."


def test_errors_of_users_are_one_line_and_others_stay_errors():
    def generator():
        yield 1
        raise FileNotFoundError(2, "No such file", "x")

    steps = with_one_line_errors(generator)()
    assert next(steps) == 1
    with pytest.raises(gr.Error, match="No such file"):
        next(steps)

    def broken():
        raise KeyError("ours")

    with pytest.raises(KeyError):
        with_one_line_errors(broken)()


def test_models_are_found_by_short_names_and_reopened_after_training(tmp_path):
    for folder in ("a/run", "b/run"):
        codes_pipeline(priors=False).save_pretrained(tmp_path / folder)
    first, second = str(tmp_path / "a/run"), str(tmp_path / "b/run")
    models = Catalogue([first, second])
    assert models.names == ["run", second]
    assert models.pipeline("run").priors == []
    codes_pipeline().save_pretrained(tmp_path / "a/run")
    assert len(models.pipeline("run").priors) == 2
    assert models.pipeline(second).priors == []
    with pytest.raises(ValueError, match="Unknown model 'rum'; did you mean run"):
        models.pipeline("rum")
    with pytest.raises(ValueError, match="a model without a run folder"):
        models.folder("run")


def test_a_model_whose_folder_is_deleted_stays_open(catalogue, tmp_path):
    models = catalogue("two levels")
    shutil.rmtree(tmp_path / "two levels")
    pipeline = models.pipeline("two levels")
    assert last_of(draw(pipeline, "dog", 0, 1, NEUTRAL, "gone"))[2] is not None


def test_runs_are_drawn_side_by_side_on_the_same_seeds(catalogue):
    models = catalogue("two levels", "three levels", "no priors")
    page = same_seeds(models, ["two levels", "three levels"], "dog", 4, 2)
    files = images_in(page)
    assert [upload_settings(file)["seed"] for file in files] == [4, 5, 4, 5]
    with pytest.raises(ValueError, match="at least one model"):
        same_seeds(models, [], "dog", 0, 1)
    with pytest.raises(ValueError, match="Needs the priors"):
        same_seeds(models, ["no priors"], "dog", 0, 1)


def test_what_is_selected_is_sent_to_other_tabs():
    samples = codes_pipeline().sample(["cat"] * 3, seeds=[1, 2, 3])
    sent = codes_pipeline().batch_of(selected_image(samples, 2))
    assert sent.allclose(samples.images[2:], atol=1 / 500)
    assert selected_image(samples, 99).tobytes() == selected_image(samples, 2).tobytes()
    assert [picture.settings["class"] for picture in sample_pictures(samples, "x")] == ["cat"] * 3
    with pytest.raises(ValueError, match="Draw images first"):
        selected_image(None, 0)


def test_a_run_in_training_shows_its_curves_health_and_report(tmp_path):
    folder = RunFolder(tmp_path / "run")
    assert "is not a run folder" in progress(folder)
    folder.write_config(small_run())
    assert "Training has not begun" in progress(folder)
    for step in (1, 2):
        folder.log("prior0").write(step, "train", {"nats_per_code": 5.0 - step})
    models = Catalogue([str(tmp_path / "run")])
    assert models.names == ["run"]
    with pytest.raises(ValueError, match="does not contain a trained model"):
        models.pipeline("run")
    page = progress(models.folder("run"))
    assert "<svg" in page
    assert "Prior of level 0" in page
    assert "is at step 0 of 10" in health(models.folder("run"))
    page = report(models.folder("run"), "cpu")
    assert page.startswith('<iframe class="vq-report" sandbox ')
    assert "<script" not in page.split("srcdoc=", 1)[0]
    shutil.rmtree(tmp_path / "run")
    assert "is not a run folder" in progress(models.folder("run"))
