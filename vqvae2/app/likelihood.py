"""The tab Likelihood: what surprises the priors, by level and position."""

from math import log
from typing import TYPE_CHECKING

import gradio as gr
from torch import Tensor

from vqvae2.app import fragments
from vqvae2.app.fragments import Picture
from vqvae2.app.page import (
    Page,
    changed_classes,
    class_choice,
    label_of,
    on,
    require_image,
)
from vqvae2.imaging.colormaps import heat
from vqvae2.metrics.likelihood import bits_per_dim
from vqvae2.pipeline import Pipeline

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_CELLS = 64 * 64
"""Positions of a map whose numbers can be read; a finer map is an image."""

HINT = "Drop one image or two, or send them from another tab. Then press Measure."


def measure(pipeline: Pipeline, label: str | None, images: dict[str, "Image | None"]) -> str:
    """Maps and numbers of one image or of two.

    Arguments:
        pipeline: with the priors of all levels.
        label: name of the class that the priors assume.
        images: by their names on the page; the first is needed.
    """
    names = [name for name, image in images.items() if image is not None]
    if not names:
        raise ValueError("Choose an image first: drop a file, or send one from another tab.")
    batch = pipeline.batch_of([require_image(images[name]) for name in names])
    labels = [label_of(pipeline, label)] * len(names)
    nats, codes = pipeline.surprise(batch, labels), pipeline.encode(batch)
    parts = [
        fragments.gallery(Picture(i, name, name) for i, name in zip(batch, names, strict=True))
    ]
    parts.append(numbers(pipeline, nats, names))
    for level, maps in enumerate(nats):
        white = float(maps.max())
        title = f"Level {level}: white is {white:.1f} nats, the most improbable code"
        pieces = [
            one_map(values, code.cpu(), white, name)
            for values, code, name in zip(maps, codes[level], names, strict=True)
        ]
        parts.append(
            f"<h3>{title}</h3>" + f'<div class="vq-gallery large">{"".join(pieces)}</div>'
        )
    return "".join(parts)


def numbers(pipeline: Pipeline, nats: list[Tensor], names: list[str]) -> str:
    """The totals of each image, as a table."""
    size = pipeline.config.image_size
    shape = (pipeline.autoencoder.config.image_channels, size, size)
    header = ["image", *(f"level {level}: nats per position" for level in range(len(nats)))]
    lines = []
    for index, name in enumerate(names):
        means = [float(maps[index].mean()) for maps in nats]
        counts = [maps[index].numel() for maps in nats]
        total = sum(float(maps[index].sum()) for maps in nats) / log(2)
        bits = bits_per_dim(means, counts, shape)
        lines.append([name, *(f"{mean:.2f}" for mean in means), f"{total:,.0f}", f"{bits:.3f}"])
    table = fragments.table([*header, "bits in all", "bits per dimension"], lines)
    if len(names) == 2:
        totals = [sum(float(maps[index].sum()) for maps in nats) for index in (0, 1)]
        less, more = (0, 1) if totals[0] <= totals[1] else (1, 0)
        factor = abs(totals[0] - totals[1]) / log(2)
        table += fragments.note(
            f"The priors find {names[less]} more probable than {names[more]}: its codes take "
            f"{factor:,.0f} bits less."
        )
    return table


def one_map(values: Tensor, codes: Tensor, white: float, name: str) -> str:
    """The map of one image at one level."""
    if values.numel() <= MAX_CELLS:
        return fragments.number_map(values, codes, white, name)
    image = heat(values[None] / max(white, 1e-9))[0].float()
    return fragments.gallery([Picture(image, f"Map of the nats of {name}", name)])


def build(page: Page) -> None:
    """The tab."""
    catalogue = page.catalogue
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            first = page.image_input("likelihood", "First image", "likelihood")
            second = page.image_input("likelihood-2", "Second image, to compare", "likelihood")
            label = class_choice(page.first(), "The class that the priors assume.")
            start = gr.Button("Measure", variant="primary", elem_id="measure")
        with gr.Column(scale=3, min_width=280):
            result = gr.HTML(
                fragments.note(HINT), js_on_load="vqvae2.numberMap(element)", elem_id="surprise"
            )

    def run(name: str, label: str, first: "Image | None", second: "Image | None") -> str:
        images = {"first image": first, "second image": second}
        return measure(catalogue.pipeline(name), label, images)

    on(start.click, run, [page.model, label, first.state, second.state], [result])
    page.updates.append(
        (
            lambda name: (changed_classes(catalogue.pipeline(name)), fragments.note(HINT)),
            [label, result],
        )
    )
