"""What the tabs share: the choice of a model, images that go from tab to tab, events.

A user's images are in `gr.State`, which belongs to one browser tab; nothing of a user is global.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from vqvae2.app.errors import with_one_line_errors
from vqvae2.app.fragments import Picture, gallery
from vqvae2.app.models import Catalogue
from vqvae2.imaging.uploads import UploadLimits, open_upload
from vqvae2.pipeline import Pipeline

if TYPE_CHECKING:
    from PIL.Image import Image

IDLE_SECONDS = 3600
"""How long the images of a browser tab that has been closed are kept."""

MAX_SIDE = 1024
"""Pixels; a larger upload is kept smaller, since models are smaller still."""

Function = Callable[..., Any]


@dataclass
class ImageInput:
    """Where an image of the user comes from: a file, or another tab.

    Arguments:
        state: the image, as of Pillow, or None.
        file: where it is dropped.
        preview: the image as the model takes it.
        tab: the id of its tab.
        after: function, inputs and outputs of what follows a new image.
    """

    state: Any
    file: Any
    preview: Any
    tab: str
    after: tuple[Function, list[Any], list[Any]] | None = None


@dataclass
class Page:
    """The page while it is built.

    Arguments:
        catalogue: the models.
        limits: of uploaded images.
        model: the component with the name of the chosen model.
        tabs: the component that holds the tabs.
        images: by the name of the tab and of the image.
        updates: functions of a model's name with the components that they change.
        sends: buttons with the image input that they fill: source function, its inputs, target.
    """

    catalogue: Catalogue
    limits: UploadLimits
    model: Any = None
    tabs: Any = None
    images: dict[str, ImageInput] = field(default_factory=dict)
    updates: list[tuple[Function, list[Any]]] = field(default_factory=list)
    sends: list[tuple[Any, Function, list[Any], str]] = field(default_factory=list)

    def first(self) -> Pipeline | None:
        """The first model if it is trained, which decides how the page looks at first."""
        return next(iter(self.catalogue.entries.values())).pipeline

    def image_input(self, name: str, label: str, tab: str) -> ImageInput:
        """A place for an image; other tabs send to it by its name."""
        state = gr.State(None, time_to_live=IDLE_SECONDS)
        file = gr.File(
            label=label, file_types=["image"], type="binary", height=120, elem_id=f"file-{name}"
        )
        preview = gr.HTML("", elem_id=f"preview-{name}")
        self.images[name] = ImageInput(state, file, preview, tab)
        return self.images[name]

    def send_button(self, text: str, source: Function, inputs: list[Any], target: str) -> None:
        """A button that sends an image to another tab; `source` returns it."""
        button = gr.Button(text, size="sm", min_width=90)
        self.sends.append((button, source, inputs, target))

    def wire(self) -> None:
        """Connects everything that needs the components of several tabs."""
        for image in self.images.values():
            read = on(
                image.file.upload,
                lambda name, data: self.uploaded(name, data),
                [self.model, image.file],
                [image.state, image.preview],
            )
            if image.after is not None:
                on(read.success, *image.after)
            clear = on(image.file.clear, lambda: (None, ""), [], [image.state, image.preview])
            if image.after is not None:
                on(clear.success, *image.after)
        for button, source, inputs, target in self.sends:
            image = self.images[target]
            sent = on(
                button.click,
                lambda name, *values, source=source, tab=image.tab: (
                    *self.sent(name, source(*values)),
                    gr.Tabs(selected=tab),
                ),
                [self.model, *inputs],
                [image.state, image.preview, image.file, self.tabs],
            )
            if image.after is not None:
                on(sent.success, *image.after)
        for function, outputs in self.updates:
            on(self.model.change, function, [self.model], outputs)

    def uploaded(self, name: str, data: bytes | None) -> tuple["Image", str]:
        """An uploaded file as an image, and how the model sees it."""
        if data is None:
            raise ValueError("Choose an image first.")
        image = open_upload(data, self.limits)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        return image, self.preview_of(name, image)

    def sent(self, name: str, image: "Image") -> tuple["Image", str, None]:
        """An image from another tab; the name of an earlier upload is removed."""
        return image, self.preview_of(name, image), None

    def preview_of(self, name: str, image: "Image") -> str:
        """The image as the model takes it: its central square, at the size of the model."""
        pipeline = self.catalogue.pipeline(name)
        side = pipeline.config.image_size
        batch = pipeline.batch_of(image)[0]
        return gallery([Picture(batch, "Your image", f"as the model takes it, {side}x{side}")])


def on(
    trigger: Any,
    function: Function,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    **options: Any,
) -> Any:
    """Calls a function at an event: one at a time for all users, errors as one line.

    Models compute on all cores, so a second call at the same time would only be slower.
    """
    settings = {
        "api_visibility": "private",
        "show_progress": "minimal",
        "concurrency_id": "models",
        "concurrency_limit": 1,
        **options,
    }
    return trigger(with_one_line_errors(function), list(inputs), list(outputs), **settings)


def require_image(image: "Image | None", what: str = "an image") -> "Image":
    """The image of an input; ValueError where there is none."""
    if image is None:
        raise ValueError(f"Choose {what} first: drop a file, or send one from another tab.")
    return image


def class_names(pipeline: Pipeline | None) -> list[str]:
    """The classes to choose from; [] for a model without classes."""
    if pipeline is None or pipeline.num_classes < 2:
        return []
    return list(pipeline.config.class_names) or [str(i) for i in range(pipeline.num_classes)]


def class_choice(pipeline: Pipeline | None, info: str) -> Any:
    """The component that chooses a class; hidden for a model without classes."""
    return gr.Dropdown(
        class_names(pipeline),
        value=next(iter(class_names(pipeline)), None),
        label="Class",
        info=info,
        visible=bool(class_names(pipeline)),
        # A name that the model does not have gets our message, which names similar ones.
        allow_custom_value=True,
        filterable=True,
    )


def changed_classes(pipeline: Pipeline | None) -> Any:
    """The same component for another model."""
    names = class_names(pipeline)
    return gr.Dropdown(choices=names, value=next(iter(names), None), visible=bool(names))


def label_of(pipeline: Pipeline, name: str | None) -> str | int:
    """The label of a chosen class; ValueError where one is missing."""
    if not class_names(pipeline):
        return 0
    if not name:
        raise ValueError("Choose a class first.")
    return int(pipeline.labels([name])[0])


def whole_number(name: str, value: float | None, low: int, high: int) -> int:
    """A number from the page; ValueError outside of its range."""
    if value is None or value != value or not low <= value <= high or value != int(value):
        raise ValueError(f"{name} must be a whole number from {low} to {high}, got {value}.")
    return int(value)
