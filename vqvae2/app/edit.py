"""The tab Edit: draws a painted part again, mixes the levels of two images, replaces codes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from vqvae2.app import fragments
from vqvae2.app.canvas import (
    Canvas,
    code_painter,
    mask_painter,
    painted_codes,
    painted_mask,
)
from vqvae2.app.fragments import Picture
from vqvae2.app.models import Catalogue
from vqvae2.app.page import (
    IDLE_SECONDS,
    Page,
    changed_classes,
    class_choice,
    label_of,
    on,
    require_image,
    whole_number,
)
from vqvae2.app.sample import MAX_SEED, pick, selected_image, status_of
from vqvae2.pipeline import Pipeline, Samples, sample_progressively
from vqvae2.pipeline.editing import mixed, with_codes

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_VARIATIONS = 16
HINT = "Drop an image, or send one from another tab. Then paint the part to draw again."
PAINTER = "vqvae2.painter(element, props, trigger, watch)"


def require_canvas(canvas: Canvas | None) -> Canvas:
    """The image that is edited; ValueError where there is none."""
    if canvas is None:
        raise ValueError("Choose an image first: drop a file, or send one from another tab.")
    return canvas


def redraw(
    pipeline: Pipeline, canvas: Canvas, painted: object, label: str | None, numbers: list[Any]
) -> Iterator[tuple[str, str, Samples | None]]:
    """Draws the painted part again, yielding the status, the images so far, and the samples.

    Arguments:
        pipeline: with the priors of all levels.
        canvas: the image.
        painted: the value of the painter.
        label: name of the class.
        numbers: kept levels, number of variations, seed of the first.
    """
    last = pipeline.autoencoder.config.num_levels - 1
    keep = whole_number("The number of kept levels", numbers[0], 0, last)
    count = whole_number("The number of variations", numbers[1], 1, MAX_VARIATIONS)
    first = whole_number("The seed", numbers[2], 0, MAX_SEED)
    mask = painted_mask(painted, pipeline)
    given = [
        codes.repeat_interleave(count, dim=0) for codes in canvas.to_sample(pipeline, mask, keep)
    ]
    labels, seeds = [label_of(pipeline, label)] * count, range(first, first + count)
    for part in sample_progressively(pipeline, labels, seeds, given=given):
        pictures = [
            Picture(image, f"Variation with seed {seed}", f"seed {seed}", f"edit-{seed:05d}.png")
            for image, seed in zip(part.images.cpu(), seeds, strict=True)
        ]
        selected = None if part.samples is None else 0
        yield status_of(part), fragments.gallery(pictures, selected), part.samples


def chosen_variation(canvas: Canvas | None, samples: Samples | None, index: int) -> Canvas:
    """The canvas with a variation in place of the image."""
    if samples is None:
        raise ValueError("Redraw a part first, then select a variation.")
    place = min(max(index, 0), len(samples) - 1)
    return require_canvas(canvas).edited([maps[place : place + 1] for maps in samples.codes])


def mixed_levels(
    pipeline: Pipeline, canvas: Canvas | None, second: "Image | None", levels: list[int]
) -> Canvas:
    """The canvas with some levels of a second image."""
    other = pipeline.encode(require_image(second, "a second image"))
    if not levels:
        raise ValueError("Choose at least one level to take from the second image.")
    return require_canvas(canvas).edited(mixed(require_canvas(canvas).codes, other, levels))


def with_painted_codes(pipeline: Pipeline, canvas: Canvas | None, painted: object) -> Canvas:
    """The canvas with the codes that were put on it."""
    level, cells = painted_codes(painted)
    codes = require_canvas(canvas).codes
    return require_canvas(canvas).edited(with_codes(pipeline, codes, level, cells))


def views(
    catalogue: Catalogue, name: str, canvas: Canvas | None, level: float, keep: float
) -> Any:
    """What shows the canvas: the canvas itself, its mask painter, and its code painter."""
    if canvas is None:
        return None, None, None
    pipeline = catalogue.pipeline(name)
    codes = None
    if canvas.codes[0].ndim == 3:
        level = min(int(level), len(canvas.codes) - 1)
        codes = code_painter(pipeline, canvas, level, catalogue.patches(name, level))
    return canvas, mask_painter(pipeline, canvas, int(keep)), codes


def build(page: Page) -> None:
    """The tab."""
    EditTab(page).build()


class EditTab:
    """The components of the tab and what happens at their events."""

    def __init__(self, page: Page) -> None:
        self.page, self.catalogue = page, page.catalogue
        self.canvas = gr.State(None, time_to_live=IDLE_SECONDS)
        self.samples = gr.State(None, time_to_live=IDLE_SECONDS)
        self.selected = gr.State(0)

    def build(self) -> None:
        """Lays out the tab and connects it."""
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self.image = self.page.image_input("edit", "Image", "edit")
                self.painter = gr.HTML(None, html_template=" ", js_on_load=PAINTER, elem_id="mask")
                self.redraw_controls()
            with gr.Column(scale=2, min_width=300):
                self.status = gr.HTML(fragments.note(HINT), elem_id="edit-status")
                self.gallery = gr.HTML(
                    "", js_on_load="vqvae2.gallery(element, trigger)", elem_id="variations"
                )
                with gr.Row():
                    self.use = gr.Button("Go on with it", min_width=90, size="sm")
                    inputs = [self.samples, self.selected]
                    for text, target in [
                        ("Reconstruct it", "reconstruct"),
                        ("Its likelihood", "likelihood"),
                        ("Second image of a mix", "edit-2"),
                    ]:
                        self.page.send_button(text, selected_image, inputs, target)
                self.mixing()
                self.code_painting()
        self.connect()

    def redraw_controls(self) -> None:
        """What decides how the painted part is drawn again."""
        pipeline = self.page.first()
        with gr.Row():
            self.start = gr.Button("Redraw", variant="primary", min_width=80, elem_id="redraw")
            self.stop = gr.Button("Stop", min_width=80)
            self.undo = gr.Button("Undo", min_width=80, elem_id="undo")
        self.label = class_choice(pipeline, "The class of the new part.")
        levels = 1 if pipeline is None else pipeline.autoencoder.config.num_levels
        self.keep = gr.Slider(
            0, max(1, levels - 1), 0, step=1, label="Coarse levels to keep", visible=levels > 1,
            info="0 draws everything in the painted part again; 1 keeps its layout and changes "
            "the details.",
        )  # fmt: skip
        self.count = gr.Slider(
            1, MAX_VARIATIONS, 4, step=1, label="Number of variations",
            info="Each has another seed.",
        )  # fmt: skip
        self.seed = gr.Number(
            0, label="Seed", precision=0, minimum=0,
            info="Of the first variation. The same seed gives the same variation.",
        )  # fmt: skip

    def mixing(self) -> None:
        """The controls that mix two images."""
        pipeline = self.page.first()
        levels = 1 if pipeline is None else pipeline.autoencoder.config.num_levels
        with gr.Accordion("Mix the levels of two images", open=False):
            self.second = self.page.image_input("edit-2", "Second image", "edit")
            self.levels = gr.CheckboxGroup(
                level_names(levels), value=[levels - 1], label="Levels of the second image",
                info="The coarsest level holds the layout and hues, the finest the details.",
            )  # fmt: skip
            self.mix = gr.Button("Mix", elem_id="mix")

    def code_painting(self) -> None:
        """The controls that replace codes."""
        pipeline = self.page.first()
        levels = 1 if pipeline is None else pipeline.autoencoder.config.num_levels
        with gr.Accordion("Paint codes", open=False):
            self.level = gr.Dropdown(
                level_names(levels), value=0, label="Level",
                info="Each patch of the palette is what its code decodes to alone.",
            )  # fmt: skip
            self.codes = gr.HTML(None, html_template=" ", js_on_load=PAINTER, elem_id="codes")
            self.apply = gr.Button("Decode the changed codes", elem_id="apply-codes")

    def connect(self) -> None:
        """The events."""
        model = self.page.model
        shown = [self.canvas, self.painter, self.codes]
        view = [self.level, self.keep]
        self.image.after = (self.load, [model, self.image.state, *view], shown)
        drawing = on(
            self.start.click,
            self.redraw,
            [model, self.canvas, self.painter, self.label, self.keep, self.count, self.seed],
            [self.status, self.gallery, self.samples, self.selected],
            show_progress="hidden",
        )
        stopped = fragments.note("Stopped. Press Redraw to begin again.")
        on(self.stop.click, lambda: stopped, [], [self.status], cancels=[drawing], queue=False)
        on(self.gallery.select, pick, [], [self.selected], queue=False, show_progress="hidden")
        inputs = [model, *view, self.canvas, self.samples, self.selected]
        on(self.use.click, self.use_variation, inputs, shown)
        on(self.undo.click, self.undo_edit, [model, *view, self.canvas], shown)
        inputs = [model, *view, self.canvas, self.second.state, self.levels]
        on(self.mix.click, self.mix_levels, inputs, shown)
        on(self.apply.click, self.apply_codes, [model, *view, self.canvas, self.codes], shown)
        on(self.level.input, self.show_level, [model, *view, self.canvas], [self.codes])
        on(self.keep.input, with_keep, [self.painter, self.keep], [self.painter], queue=False)
        changed = [self.label, self.keep, self.levels, self.level, *shown, self.samples]
        changed += [self.gallery, self.status, self.image.state, self.image.preview]
        self.page.updates.append((self.changed_model, changed))

    def load(self, name: str, image: "Image | None", level: float, keep: float) -> Any:
        """An image becomes the canvas."""
        canvas = None if image is None else Canvas.of(self.catalogue.pipeline(name), image)
        return views(self.catalogue, name, canvas, level, keep)

    def redraw(
        self, name: str, canvas: Canvas | None, painted: object, label: str, *numbers: Any
    ) -> Iterator[Any]:
        """Draws the painted part again."""
        pipeline = self.catalogue.pipeline(name)
        for part in redraw(pipeline, require_canvas(canvas), painted, label, list(numbers)):
            yield (*part, 0)

    def use_variation(
        self, name: str, level: float, keep: float, canvas: Canvas | None, *chosen: Any
    ) -> Any:
        """A variation becomes the canvas."""
        return views(self.catalogue, name, chosen_variation(canvas, *chosen), level, keep)

    def undo_edit(self, name: str, level: float, keep: float, canvas: Canvas | None) -> Any:
        """Returns to the canvas before."""
        return views(self.catalogue, name, require_canvas(canvas).undone(), level, keep)

    def mix_levels(
        self, name: str, level: float, keep: float, canvas: Canvas | None, *other: Any
    ) -> Any:
        """Takes levels from the second image."""
        result = mixed_levels(self.catalogue.pipeline(name), canvas, *other)
        return views(self.catalogue, name, result, level, keep)

    def apply_codes(
        self, name: str, level: float, keep: float, canvas: Canvas | None, painted: object
    ) -> Any:
        """Decodes the codes that were put on the map."""
        result = with_painted_codes(self.catalogue.pipeline(name), canvas, painted)
        return views(self.catalogue, name, result, level, keep)

    def show_level(self, name: str, level: float, keep: float, canvas: Canvas | None) -> Any:
        """The map of another level."""
        return views(self.catalogue, name, canvas, level, keep)[2]

    def changed_model(self, name: str) -> list[Any]:
        """Another model: nothing of the image before fits."""
        pipeline = self.catalogue.pipeline(name)
        levels = pipeline.autoencoder.config.num_levels
        return [
            changed_classes(pipeline),
            gr.Slider(maximum=max(1, levels - 1), value=0, visible=levels > 1),
            gr.CheckboxGroup(choices=level_names(levels), value=[levels - 1]),
            gr.Dropdown(choices=level_names(levels), value=0),
            *[None] * 4,
            "",
            fragments.note(HINT),
            None,
            "",
        ]


def with_keep(painted: object, keep: float) -> object:
    """The painter with another number of kept levels, and what was painted."""
    return {**painted, "keep": int(keep)} if isinstance(painted, dict) else None


def level_names(num_levels: int) -> list[tuple[str, int]]:
    """The levels to choose from."""
    return [(f"Level {level}", level) for level in range(num_levels)]
