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
    seed: float | None,
    count: float | None,
    controls: tuple[Any, ...],
    source: str,
) -> Iterator[tuple[str, str, Samples | None]]:
    """Draws images, yielding the status, the images so far, and in the end the samples.

    Arguments:
        pipeline: with the chosen decoder.
        label: name of the class.
        seed: of the first image.
        count: number of images.
        controls: values of `level_controls`.
        source: name of the model, which downloads store.
    """
    number = whole_number("The number of images", count, 1, MAX_IMAGES)
    first = whole_number("The seed", seed, 0, MAX_SEED)
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
    catalogue, pipeline = page.catalogue, page.first()
    num_levels = catalogue.num_levels
    samples = gr.State(None, time_to_live=IDLE_SECONDS)
    selected = gr.State(0)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            label = class_choice(pipeline, "What the images show. Type to search.")
            seed = gr.Number(
                0, label="Seed", precision=0, minimum=0,
                info="The same seed, class and settings give the same image.",
            )  # fmt: skip
            count = gr.Slider(
                1, MAX_IMAGES, 8, step=1, label="Number of images",
                info="Their seeds follow one another.",
            )  # fmt: skip
            decoder = decoder_choice(pipeline)
            with gr.Row():
                start = gr.Button("Draw", variant="primary", elem_id="draw", min_width=90)
                stop = gr.Button("Stop", elem_id="stop", min_width=90)
            groups, controls = level_controls(pipeline, num_levels)
            with gr.Accordion("Restore the settings of an image", open=False):
                restore = gr.File(
                    label="A PNG that was downloaded here", file_types=[".png"], type="binary",
                    height=120, elem_id="file-restore",
                )  # fmt: skip
        with gr.Column(scale=3, min_width=280):
            status = gr.HTML(fragments.note("Choose a class and press Draw."), elem_id="status")
            images = gr.HTML("", js_on_load=JS, elem_id="samples")
            with gr.Row():
                for text, target in [
                    ("Reconstruct it", "reconstruct"),
                    ("Edit it", "edit"),
                    ("Its likelihood", "likelihood"),
                ]:
                    page.send_button(text, selected_image, [samples, selected], target)

    def run(name: str, kind: str, label: str, seed: float, count: float, *values: Any) -> Any:
        models = with_decoder(catalogue.pipeline(name), kind)
        for status, gallery, done in draw(models, label, seed, count, values, name):
            yield status, gallery, done, 0

    def pick(event: gr.EventData) -> int:
        return int(event.index)

    def apply_settings(name: str, data: bytes | None) -> list[Any]:
        values = restored(data, catalogue.pipeline(name), page.limits)
        missing = 3 + PER_LEVEL * num_levels - len(values)
        text = fragments.note("The settings of the file are restored; press Draw.")
        return [*values, *[gr.skip()] * missing, text]

    drawing = on(
        start.click,
        run,
        [page.model, decoder, label, seed, count, *controls],
        [status, images, samples, selected],
        show_progress="hidden",
    )
    stopped = fragments.note("Stopped. Press Draw to begin again.")
    on(stop.click, lambda: stopped, [], [status], cancels=[drawing], queue=False)
    on(images.select, pick, [], [selected], queue=False, show_progress="hidden")
    on(
        restore.upload,
        apply_settings,
        [page.model, restore],
        [label, seed, decoder, *controls, status],
    )
    page.updates.append(
        (
            lambda name: changed_model(catalogue.pipeline(name), num_levels),
            [label, decoder, *groups, *controls, images, samples, status],
        )
    )


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
