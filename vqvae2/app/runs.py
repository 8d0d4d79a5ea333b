"""The tab Runs: runs side by side on the same seeds; curves, health and report of each.

The report with matplotlib is imported when it is used, so that the page is there sooner.
"""

from typing import Any

import gradio as gr

from vqvae2.app import fragments
from vqvae2.app.fragments import Picture
from vqvae2.app.models import Catalogue
from vqvae2.app.page import Page, class_names, label_of, on, whole_number
from vqvae2.app.sample import MAX_SEED, sample_pictures
from vqvae2.imaging.png import read_png
from vqvae2.runs.folder import RunFolder

MAX_PER_MODEL = 8
LIVE_SECONDS = 5


def same_seeds(
    catalogue: Catalogue, names: list[str], label: str | None, first: float, count: float
) -> str:
    """A row of samples per model, with the same class and seeds."""
    if not names:
        raise ValueError("Choose at least one model.")
    number = whole_number("The number of images", count, 1, MAX_PER_MODEL)
    seed = whole_number("The seed", first, 0, MAX_SEED)
    rows = {}
    for name in names:
        pipeline = catalogue.pipeline(name)
        labels = [label_of(pipeline, label)] * number
        samples = pipeline.sample(labels, range(seed, seed + number))
        rows[name] = sample_pictures(samples, name)
    return fragments.rows(rows)


def health(folder: RunFolder) -> str:
    """What the doctor finds."""
    from vqvae2.report.doctor import diagnose

    items = []
    for finding in diagnose(folder):
        advice = f"<small>{fragments.escaped(finding.advice)}</small>" if finding.advice else ""
        items.append(
            f'<li class="vq-{finding.verdict}"><b>{finding.verdict}</b> '
            f"<span>{fragments.escaped(finding.text)} {advice}</span></li>"
        )
    return f'<ul class="vq-findings">{"".join(items)}</ul>'


def progress(folder: RunFolder) -> str:
    """The curves and the newest previews of a run, which may be in training."""
    from vqvae2.report.blocks import Plots
    from vqvae2.report.source import ReportSource
    from vqvae2.report.training_sections import training

    try:
        blocks = training(ReportSource(folder, "cpu"))
    except ValueError as error:
        return fragments.note(str(error))
    curves = [
        f'<figure class="vq-plot"><figcaption>{fragments.escaped(curve.title)} '
        f"<small>{fragments.escaped(curve.note)}</small></figcaption>{curve.plot}</figure>"
        for block in blocks
        if isinstance(block, Plots)
        for curve in block.curves
    ]
    previews = [
        Picture(read_png(path), f"Preview of {stage}", path.stem)
        for stage, path in folder.latest_previews().items()
    ]
    parts = [f'<div class="vq-plots">{"".join(curves)}</div>']
    if previews:
        parts.append(
            f"<h3>Newest previews</h3><div class='vq-wide'>{fragments.gallery(previews)}</div>"
        )
    return "".join(parts)


def report(folder: RunFolder, device: str) -> str:
    """The report of a run, in a frame that runs no scripts and cannot reach the page."""
    from vqvae2.report.report import render_report

    page = fragments.escaped(render_report(folder, device))
    title = fragments.escaped(f"Report of {folder.path.name}")
    return f'<iframe class="vq-report" sandbox title="{title}" srcdoc="{page}"></iframe>'


def build(page: Page) -> None:
    """The tab."""
    side_by_side(page)
    one_run(page)


def side_by_side(page: Page) -> None:
    """The part that compares models on the same seeds."""
    catalogue = page.catalogue
    names, classes = catalogue.names, class_names(page.first())
    gr.Markdown("### The same seeds, side by side")
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            models = gr.CheckboxGroup(
                names, value=names, label="Models", info="One row of images for each."
            )
            label = gr.Dropdown(
                classes, value=next(iter(classes), None), label="Class", visible=bool(classes),
                allow_custom_value=True, info="All models must have this class.",
            )  # fmt: skip
            seed = gr.Number(
                0, label="Seed", precision=0, minimum=0, info="Of the first image of each row."
            )
            count = gr.Slider(
                1, MAX_PER_MODEL, 4, step=1, label="Images per model",
                info="Their seeds follow one another.",
            )  # fmt: skip
            compare = gr.Button("Draw side by side", variant="primary", elem_id="compare")
        with gr.Column(scale=3, min_width=280):
            rows = gr.HTML(fragments.note("Choose models and press the button."), elem_id="rows")

    def draw(names: list[str], *values: Any) -> str:
        return same_seeds(catalogue, names, *values)

    on(compare.click, draw, [models, label, seed, count], [rows])


def one_run(page: Page) -> None:
    """The part about the run of the chosen model."""
    catalogue = page.catalogue
    gr.Markdown("### The run that is chosen above")
    with gr.Row():
        refresh = gr.Button("Curves and previews", min_width=130, elem_id="curves")
        check = gr.Button("Health", min_width=90, elem_id="health")
        write = gr.Button("Report", min_width=90, elem_id="report")
        live = gr.Checkbox(
            False, label="Live", info=f"Curves again every {LIVE_SECONDS} s.", min_width=120
        )
    result = gr.HTML(
        fragments.note("The report takes up to a minute on a large run."), elem_id="run"
    )
    timer = gr.Timer(LIVE_SECONDS, active=False)

    def show_progress(name: str) -> str:
        return progress(catalogue.folder(name))

    def show_report(name: str) -> str:
        return report(catalogue.folder(name), catalogue.device)

    on(refresh.click, show_progress, [page.model], [result])
    on(check.click, lambda name: health(catalogue.folder(name)), [page.model], [result])
    on(write.click, show_report, [page.model], [result])
    on(timer.tick, show_progress, [page.model], [result], show_progress="hidden")
    on(live.input, lambda active: gr.Timer(active=bool(active)), [live], [timer], queue=False)
