"""The tab Sample: draws images of a class, and shows them while they are drawn."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import gradio as gr

from vqvae2.app import fragments
from vqvae2.app.controls import (
    PER_LEVEL,
    changed_controls,
    changed_decoder,
    decoder_choice,
    level_controls,
    sampling_of,
    with_decoder,
)
from vqvae2.app.fragments import Picture
from vqvae2.app.page import (
    IDLE_SECONDS,
    Page,
    changed_classes,
    class_choice,
    label_of,
    on,
    whole_number,
)
from vqvae2.configuration import from_dict
from vqvae2.imaging.uploads import UploadLimits, upload_settings
from vqvae2.messages import counted, duration
from vqvae2.pipeline import PartialSamples, Pipeline, Samples, sample_progressively
from vqvae2.pipeline.samples import file_name
from vqvae2.sampling import SamplingConfig

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_IMAGES = 64
MAX_SEED = 2**53
"""Larger integers are rounded by browsers."""

JS = "vqvae2.gallery(element, trigger)"


def draw(
    pipeline: Pipeline,
    label: str | None,
    numbers: tuple[float | None, float | None],
    controls: tuple[Any, ...],
    source: str,
) -> Iterator[tuple[str, str, Samples | None]]:
    """Draws images, yielding the status, the images so far, and in the end the samples.

    Arguments:
        pipeline: with the chosen decoder.
        label: name of the class.
        numbers: the seed of the first image, and the number of images.
        controls: values of `level_controls`.
        source: name of the model, which downloads store.
    """
    number = whole_number("The number of images", numbers[1], 1, MAX_IMAGES)
    first = whole_number("The seed", numbers[0], 0, MAX_SEED)
    labels = [label_of(pipeline, label)] * number
    sampling = sampling_of(pipeline, controls)
    seeds = range(first, first + number)
    for part in sample_progressively(pipeline, labels, seeds, sampling=sampling):
        done = part.samples
        yield status_of(part), gallery_of(part, label, first, source), done


def status_of(part: PartialSamples) -> str:
    """How far the drawing is, as a sentence."""
    speed = f"{part.values_per_second:,.0f} codes/s"
    if part.samples is not None:
        images = counted(len(part.images), "image")
        return fragments.note(f"Done: {images} in {part.seconds:.1f} s, {speed}.")
    return fragments.note(
        f"Drawing level {part.level}: {part.done} of {part.total} codes per image, {speed}, "
        f"{duration(part.seconds_left)} left."
    )


def gallery_of(part: PartialSamples, label: str | None, first: int, source: str) -> str:
    """The images so far; complete ones can be selected and downloaded."""
    samples = part.samples
    if samples is None:
        pictures = [
            Picture(image, f"Image that is being drawn, seed {first + index}", "drawing")
            for index, image in enumerate(part.images)
        ]
        return fragments.gallery(pictures)
    return fragments.gallery(sample_pictures(samples, source), selected=0)


def sample_pictures(samples: Samples, source: str) -> list[Picture]:
    """The images of samples, with the settings that made them."""
    pictures = []
    labels = samples.labels.tolist()
    for image, label, name, seed in zip(
        samples.images.cpu(), labels, samples.names, samples.seeds, strict=True
    ):
        what = name if samples.class_names else "sample"
        pictures.append(
            Picture(
                image,
                f"{what}, seed {seed}",
                f"{what}, seed {seed}",
                f"{file_name(samples.class_names, label)}-{seed:05d}.png",
                {"run": source, "class": name, "seed": seed, **samples.settings},
            )
        )
    return pictures


def selected_image(samples: Samples | None, index: int) -> "Image":
    """The chosen image, for another tab."""
    if samples is None:
        raise ValueError("Draw images first, then select one.")
    return samples.to_pil()[min(max(index, 0), len(samples) - 1)]


def restored(data: bytes | None, pipeline: Pipeline, limits: UploadLimits) -> list[Any]:
    """The controls that made an image: class, seed, decoder, and those of each level.

    Raises:
        ValueError: the file holds no settings, or this model cannot use them.
    """
    if data is None:
        raise ValueError("Choose a PNG file first.")
    settings = upload_settings(data, limits)
    name, seed = settings.get("class"), settings.get("seed")
    label = None
    if pipeline.num_classes > 1:
        label = str(name)
        label_of(pipeline, label)  # raises for a class that this model does not have
    if not isinstance(seed, int):
        raise ValueError("The settings in this file contain no seed.")
    sampling = settings.get("sampling")
    items = sampling if isinstance(sampling, list) else []
    configs = [from_dict(SamplingConfig, item, "sampling") for item in items]
    if len(configs) != len(pipeline.sampling):
        raise ValueError(
            f"The settings in this file are of a model with {counted(len(configs), 'level')}; "
            f"this one has {len(pipeline.sampling)}."
        )
    decoder = str(settings.get("decoder") or pipeline.decoder_in_use)
    values: list[Any] = [label, seed, with_decoder(pipeline, decoder).decoder]
    for config in configs:
        values += [config.temperature, config.top_k or 0, config.top_p, config.guidance]
    return values


def build(page: Page) -> None:
    """The tab."""
    tab = SampleTab(page)
    tab.lay_out()
    tab.connect()


class SampleTab:
    """The components of the tab and what happens at their events."""

    def __init__(self, page: Page) -> None:
        self.page, self.catalogue = page, page.catalogue
        self.num_levels = page.catalogue.num_levels
        self.samples = gr.State(None, time_to_live=IDLE_SECONDS)
        self.selected = gr.State(0)

    def lay_out(self) -> None:
        """Places the components."""
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                self.inputs(self.page.first())
            with gr.Column(scale=3, min_width=280):
                hint = fragments.note("Choose a class and press Draw.")
                self.status = gr.HTML(hint, elem_id="status")
                self.images = gr.HTML("", js_on_load=JS, elem_id="samples")
                with gr.Row():
                    for text, target in [
                        ("Reconstruct it", "reconstruct"),
                        ("Edit it", "edit"),
                        ("Its likelihood", "likelihood"),
                    ]:
                        inputs = [self.samples, self.selected]
                        self.page.send_button(text, selected_image, inputs, target)

    def inputs(self, pipeline: Pipeline | None) -> None:
        """What decides which images are drawn."""
        self.label = class_choice(pipeline, "What the images show. Type to search.")
        self.seed = gr.Number(
            0, label="Seed", precision=0, minimum=0,
            info="The same seed, class and settings give the same image.",
        )  # fmt: skip
        self.count = gr.Slider(
            1, MAX_IMAGES, 8, step=1, label="Number of images",
            info="Their seeds follow one another.",
        )  # fmt: skip
        self.decoder = decoder_choice(pipeline)
        with gr.Row():
            self.start = gr.Button("Draw", variant="primary", elem_id="draw", min_width=90)
            self.stop = gr.Button("Stop", elem_id="stop", min_width=90)
        self.groups, self.controls = level_controls(pipeline, self.num_levels)
        with gr.Accordion("Restore the settings of an image", open=False):
            self.restore = gr.File(
                label="A PNG that was downloaded here", file_types=[".png"], type="binary",
                height=120, elem_id="file-restore",
            )  # fmt: skip

    def connect(self) -> None:
        """The events."""
        model, chosen = self.page.model, [self.label, self.seed]
        drawing = on(
            self.start.click,
            self.run,
            [model, self.decoder, *chosen, self.count, *self.controls],
            [self.status, self.images, self.samples, self.selected],
            show_progress="hidden",
        )
        stopped = fragments.note("Stopped. Press Draw to begin again.")
        on(self.stop.click, lambda: stopped, [], [self.status], cancels=[drawing], queue=False)
        on(self.images.select, pick, [], [self.selected], queue=False, show_progress="hidden")
        outputs = [*chosen, self.decoder, *self.controls, self.status]
        on(self.restore.upload, self.apply_settings, [model, self.restore], outputs)
        changed = [self.label, self.decoder, *self.groups, *self.controls]
        changed += [self.images, self.samples, self.status]
        self.page.updates.append((self.change_model, changed))

    def run(
        self, name: str, kind: str, label: str, seed: float, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Draws images; the first of the values is their number."""
        models = with_decoder(self.catalogue.pipeline(name), kind)
        for part in draw(models, label, (seed, values[0]), values[1:], name):
            yield (*part, 0)

    def apply_settings(self, name: str, data: bytes | None) -> list[Any]:
        """Sets all controls as a file says."""
        values = restored(data, self.catalogue.pipeline(name), self.page.limits)
        missing = 3 + PER_LEVEL * self.num_levels - len(values)
        text = fragments.note("The settings of the file are restored; press Draw.")
        return [*values, *[gr.skip()] * missing, text]

    def change_model(self, name: str) -> list[Any]:
        """The components for another model."""
        return changed_model(self.catalogue.pipeline(name), self.num_levels)


def pick(event: gr.EventData) -> int:
    """The index of the image that was selected."""
    return int(event.index)


def changed_model(pipeline: Pipeline, num_levels: int) -> list[Any]:
    """The components of the tab for another model."""
    return [
        changed_classes(pipeline),
        changed_decoder(pipeline),
        *changed_controls(pipeline, num_levels),
        "",
        None,
        fragments.note("Choose a class and press Draw."),
    ]
