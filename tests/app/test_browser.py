"""The app in a real browser, as a person uses it, on a wide screen and on a phone.

SCREENSHOTS=FOLDER writes a picture of each tab; APP_RUN=RUN shows that run in place of random
weights.
"""

import os
import re
import signal

import pytest
from app_browser import (
    ARGUMENTS,
    CHROMIUM,
    Problems,
    app_process,
    png_bytes,
    save_screenshot,
)
from builders import synthetic_images
from tiny_pipelines import codes_pipeline

from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.uploads import upload_settings

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'vqvae2[app]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
if not CHROMIUM:
    pytest.skip("needs chromium: make browser", allow_module_level=True)

WIDTHS = {"wide": 1400, "phone": 390}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """An app with two models, or with the run that APP_RUN names."""
    if run := os.environ.get("APP_RUN"):
        models = [run]
    else:
        folder = tmp_path_factory.mktemp("models")
        codes_pipeline(sharp=True).save_pretrained(folder / "first")
        codes_pipeline((2, 2, 2), classes=()).save_pretrained(folder / "second")
        models = [str(folder / "first"), str(folder / "second")]
    with app_process(*models) as (address, _):
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(params=WIDTHS)
def page(request, browser, address):
    """The page in a new window; nothing may go wrong in it."""
    scheme = "dark" if request.param == "phone" else "light"
    context = browser.new_context(
        viewport={"width": WIDTHS[request.param], "height": 900}, color_scheme=scheme
    )
    page = context.new_page()
    page.set_default_timeout(60_000)
    problems = Problems(page, address)
    page.goto(address)
    page.get_by_role("button", name="Draw", exact=True).wait_for()
    page.kind = request.param
    yield page
    wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")
    context.close()
    assert not problems.found
    assert not wide, "the page scrolls sideways"


def button(page, name):
    return page.get_by_role("button", name=name, exact=True).locator("visible=true").first


def open_section(page, name):
    """Opens a closed section; its button also holds an arrow."""
    page.locator("button.label-wrap", has_text=name).locator("visible=true").click()


def open_tab(page, name):
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():  # on a narrow screen the last tabs are in a menu
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown").get_by_text(name)
    tab.click()


def draw(page, count):
    page.get_by_label("number input for Number of images").first.fill(str(count))
    page.keyboard.press("Tab")
    button(page, "Draw").click()
    page.locator("#status").get_by_text("Done:").wait_for()
    assert page.locator("#samples img").count() == count


def changed(page, selector, before):
    page.wait_for_function(
        "([selector, before]) => document.querySelector(selector).src !== before",
        arg=[selector, before],
    )
    return page.locator(selector).get_attribute("src")


def test_images_are_drawn_selected_downloaded_and_restored(page, tmp_path):
    draw(page, 3)
    choices = page.locator("#samples .vq-choice")
    assert re.match(r"\w+, seed 0", choices.first.locator("img").get_attribute("alt"))
    choices.nth(2).click()
    assert choices.nth(2).get_attribute("aria-pressed") == "true"
    with page.expect_download() as download:
        page.locator("#samples .vq-download").nth(2).click()
    file = tmp_path / download.value.suggested_filename
    download.value.save_as(file)
    assert upload_settings(file)["seed"] == 2
    save_screenshot(page, f"sample-{page.kind}")
    open_section(page, "Restore the settings of an image")
    page.locator("#file-restore input[type=file]").set_input_files(file)
    page.locator("#status").get_by_text("are restored").wait_for()
    assert page.get_by_label("Seed").first.input_value() == "2"
    picture = page.locator("#samples img").nth(2).get_attribute("src")
    draw(page, 1)
    assert page.locator("#samples img").first.get_attribute("src") == picture


def test_an_image_goes_from_tab_to_tab_and_is_edited(page):
    draw(page, 2)
    page.locator("#samples .vq-choice").nth(1).click()
    page.wait_for_timeout(300)
    button(page, "Reconstruct it").click()
    page.locator("#reconstruction .vq-compare").first.wait_for()
    slider = page.locator("#reconstruction input[type=range]").first
    slider.fill("80")
    assert "80%" in page.locator("#reconstruction .vq-compare").first.get_attribute("style")
    save_screenshot(page, f"reconstruct-{page.kind}")
    button(page, "Edit it").click()
    cells = page.locator("#mask .vq-paint button")
    cells.first.wait_for()
    columns = round(cells.count() ** 0.5)
    boxes = [cells.nth(index).bounding_box() for index in (0, columns - 1)]
    page.mouse.move(boxes[0]["x"] + 4, boxes[0]["y"] + 4)
    page.mouse.down()
    page.mouse.move(boxes[1]["x"] + 4, boxes[1]["y"] + 4, steps=30)
    page.mouse.up()
    assert f"{columns} cells painted" in page.locator("#mask output").inner_text()
    # By keyboard: to the row below, where Space paints one more cell.
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert f"{columns + 1} cells painted" in page.locator("#mask output").inner_text()
    button(page, "Redraw").click()
    page.locator("#edit-status").get_by_text("Done: 4 images").wait_for()
    save_screenshot(page, f"edit-{page.kind}")
    original = page.locator("#mask img").get_attribute("src")
    page.locator("#variations .vq-choice").nth(1).click()
    page.wait_for_timeout(300)
    button(page, "Go on with it").click()
    changed(page, "#mask img", original)
    button(page, "Undo").click()
    page.wait_for_function(
        "(before) => document.querySelector('#mask img').src === before", arg=original
    )
    open_section(page, "Paint codes")
    page.locator("#codes .vq-palette button").nth(5).click()
    page.locator("#codes .vq-paint button").first.click()
    page.locator("#codes output").get_by_text("1 cell changed").wait_for()
    save_screenshot(page, f"codes-{page.kind}")
    button(page, "Decode the changed codes").click()
    # A new canvas; a code of random weights may not change a pixel.
    page.locator("#codes output").get_by_text("0 cells changed").wait_for()


def test_two_images_are_compared_by_their_likelihood(page):
    open_tab(page, "Likelihood")
    for index, name in enumerate(("likelihood", "likelihood-2")):
        data = png_bytes(to_pil(synthetic_images(1, 48, first=index)[0]))
        file = {"name": "cat.png", "mimeType": "image/png", "buffer": data}
        page.locator(f"#file-{name} input[type=file]").set_input_files(file)
        page.locator(f"#preview-{name} img").wait_for()
    button(page, "Measure").click()
    page.locator("#surprise").get_by_text("more probable than").wait_for()
    page.locator("#surprise .vq-cells i").nth(1).hover()
    assert re.match(
        r"row 1, column 2: \d+\.\d\d nats, code \d+",
        page.locator("#surprise output").first.inner_text(),
    )
    page.locator("#surprise .vq-cells i").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    assert page.locator("#surprise output").first.inner_text().startswith("row 2, column 2")
    save_screenshot(page, f"likelihood-{page.kind}")


def test_runs_are_drawn_side_by_side(page):
    open_tab(page, "Runs")
    if not os.environ.get("APP_RUN"):
        page.locator("label").get_by_text("second", exact=True).locator("visible=true").click()
    button(page, "Draw side by side").click()
    page.locator("#rows img").first.wait_for()
    assert page.locator("#rows img").count() == 4
    if os.environ.get("APP_RUN"):
        button(page, "Curves and previews").click()
        page.locator("#run svg").first.wait_for()
    else:
        button(page, "Health").click()
        page.get_by_text("without a run folder").first.wait_for()
    save_screenshot(page, f"runs-{page.kind}")


@pytest.mark.parametrize("page", ["wide"], indirect=True)
def test_bad_input_is_one_line_and_the_page_goes_on(page):
    button(page, "Edit it").click()
    page.get_by_text("Draw images first, then select one.").first.wait_for()
    open_tab(page, "Edit")
    button(page, "Redraw").click()
    page.get_by_text("Choose an image first: drop a file").first.wait_for()
    picture = to_pil(synthetic_images(1, 48)[0])
    upload = page.locator("#file-edit input[type=file]")
    upload.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"text"})
    page.get_by_text("This file is not an image that can be read").first.wait_for()
    # The picture of the button lies over it, which a click at a point would meet.
    clear = page.locator("#file-edit button[aria-label=Clear]")
    clear.evaluate_all("(buttons) => buttons.forEach((button) => button.click())")
    upload.set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": png_bytes(picture)}
    )
    page.locator("#mask .vq-paint button").first.wait_for()
    button(page, "Redraw").click()
    page.get_by_text("Nothing is painted: mark the cells").first.wait_for()
    assert page.get_by_text("Traceback").count() == 0


@pytest.mark.parametrize("page", ["wide"], indirect=True)
def test_two_users_do_not_see_each_others_images(page, browser, address):
    draw(page, 2)
    other = browser.new_context().new_page()
    other.goto(address)
    button(other, "Draw").wait_for()
    assert other.locator("#samples img").count() == 0
    button(other, "Edit it").click()
    other.get_by_text("Draw images first, then select one.").first.wait_for()
    other.context.close()


def test_the_app_ends_at_a_signal_and_leaves_no_files(tmp_path, monkeypatch):
    codes_pipeline().save_pretrained(tmp_path / "model")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    with app_process(str(tmp_path / "model")) as (_, process):
        assert any((tmp_path / "temporary").glob("vqvae2-app-*"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    assert not any((tmp_path / "temporary").glob("vqvae2-app-*"))
