"""The page as a whole, and the server that shows it on this machine."""

import contextlib
import os
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import gradio as gr

from vqvae2.app import edit, fragments, likelihood, reconstruct, runs, sample
from vqvae2.app.models import Catalogue
from vqvae2.app.page import Page
from vqvae2.imaging.uploads import UploadLimits
from vqvae2.pipeline import Pipeline

FIRST_PORT, NUM_PORTS = 7860, 100
USER = "vqvae2"
"""The name that a login asks for, beside the password."""

QUEUE_SIZE = 64
"""Requests that may wait; more get a message."""

SESSIONS = 200
"""Browser tabs whose images are kept; the oldest are forgotten."""

CACHE_SECONDS = 600
"""How long an uploaded file stays on the disk, at most."""

POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
    "connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)
"""A browser fetches nothing from anywhere else (Content-Security-Policy)."""


@dataclass(frozen=True)
class ServerOptions:
    """Where the app listens and who may use it.

    Arguments:
        host: the address; 127.0.0.1 is this machine alone.
        port: 0 takes the first free one from 7860.
        share: opens a public link through the servers of Gradio.
        password: asked for by a login; needed for a link and for other machines.
        limits: of uploaded images.
    """

    host: str = "127.0.0.1"
    port: int = 0
    share: bool = False
    password: str = ""
    limits: UploadLimits = field(default_factory=UploadLimits)

    def __post_init__(self) -> None:
        """Validates the options."""
        is_local = self.host in ("127.0.0.1", "localhost", "::1")
        if not self.password and (self.share or not is_local):
            raise ValueError(
                "Others could use this app: set a password with --password or the variable "
                "VQVAE2_APP_PASSWORD, or leave out --share and --host."
            )
        if self.port and not 1 <= self.port <= 65_535:
            raise ValueError(f"--port must be from 1 to 65535, got {self.port}.")


TABS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "sample": ("Sample", sample.build),
    "reconstruct": ("Reconstruct", reconstruct.build),
    "edit": ("Edit", edit.build),
    "likelihood": ("Likelihood", likelihood.build),
    "runs": ("Runs", runs.build),
}


def build_page(catalogue: Catalogue, limits: UploadLimits) -> Any:
    """The page with all tabs."""
    page = Page(catalogue, limits)
    with gr.Blocks(
        title="vqvae2", analytics_enabled=False, delete_cache=(60, CACHE_SECONDS)
    ) as blocks:
        names = catalogue.names
        with gr.Row():
            page.model = gr.Dropdown(
                names, value=names[0], label="Model", visible=len(names) > 1,
                info="All tabs use it.", elem_id="model",
            )  # fmt: skip
            about = gr.HTML(description(catalogue, names[0]), elem_id="about")
        with gr.Tabs(selected="sample") as page.tabs:
            for identifier, (title, build) in TABS.items():
                with gr.Tab(title, id=identifier):
                    build(page)
        page.updates.append((lambda name: description(catalogue, name), [about]))
        page.wire()
    blocks.queue(max_size=QUEUE_SIZE, default_concurrency_limit=4, api_open=False)
    return blocks


def description(catalogue: Catalogue, name: str) -> str:
    """What the chosen model is, or why it cannot be used yet."""
    entry = catalogue.entry(name)
    title = "<h1>vqvae2</h1>"
    if entry.pipeline is None:
        return title + fragments.note(f"{name}: {entry.problem}", "warning")
    return title + fragments.facts({"model": name, **facts_of(entry.pipeline)})


def facts_of(pipeline: Pipeline) -> dict[str, str]:
    """The size of a model, and what it can do."""
    size = pipeline.config.image_size
    levels = pipeline.autoencoder.config.num_levels
    weights = sum(w.numel() for model in pipeline.models for w in model.parameters())
    facts = {
        "images": f"{size}x{size}",
        "codes": "; ".join(map(str, pipeline.autoencoder.config.grids(size, size))),
        "classes": str(pipeline.num_classes) if pipeline.num_classes > 1 else "none",
        "parameters": f"{weights / 1e6:.1f} million",
    }
    if len(pipeline.priors) < levels:
        facts["priors"] = f"{len(pipeline.priors)} of {levels}: this model cannot draw images yet"
    return facts


class SecurityHeaders:
    """Adds headers that keep a browser from fetching or sending anything elsewhere (ASGI)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_with_headers)


@contextlib.contextmanager
def serving(catalogue: Catalogue, options: ServerOptions) -> Iterator[str]:
    """Serves the page within the context; gives its address.

    Files of uploads are in a folder of their own, which is removed at the end.
    """
    from starlette.middleware import Middleware

    # Sizes are checked before any pixel is decoded; Pillow's own warning would only be printed.
    warnings.filterwarnings("ignore", message="Image size .* decompression bomb")
    with (
        ending_at_a_signal(),
        tempfile.TemporaryDirectory(prefix="vqvae2-app-", ignore_cleanup_errors=True) as folder,
    ):
        os.environ["GRADIO_TEMP_DIR"] = folder
        blocks = build_page(catalogue, options.limits)
        try:
            _, local, shared = blocks.launch(
                server_name=options.host,
                server_port=options.port or None,
                share=options.share,
                auth=(USER, options.password) if options.password else None,
                max_file_size=f"{options.limits.megabytes:g}mb",
                state_session_capacity=SESSIONS,
                app_kwargs={"middleware": [Middleware(SecurityHeaders)]},
                allowed_paths=[],
                theme=theme(),
                css=static("app.css"),
                head=f"<script>{static('app.js')}</script>",
                footer_links=[],
                enable_monitoring=False,
                run_history=False,
                ssr_mode=False,
                mcp_server=False,
                pwa=False,
                show_error=False,
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise ValueError(port_problem(options.port)) from error
        try:
            yield shared or local
        finally:
            blocks.close(verbose=False)


@contextlib.contextmanager
def ending_at_a_signal() -> Iterator[None]:
    """Lets SIGTERM, like Ctrl-C, end the context in order; only the main thread can do that."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def wait() -> None:
    """Waits until the process is interrupted or told to end."""
    threading.Event().wait()


def port_problem(port: int) -> str:
    """Why the server cannot listen."""
    if not port:
        last = FIRST_PORT + NUM_PORTS - 1
        return f"No port from {FIRST_PORT} to {last} is free; name one with --port."
    return (
        f"Port {port} cannot be used; another app may be running there. Open that one, stop it, "
        "or leave out --port to take a free one."
    )


def theme() -> Any:
    """Fonts of the system: none is fetched."""
    fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    mono = ["ui-monospace", "Consolas", "monospace"]
    return gr.themes.Base(
        primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=mono, text_size="md"
    )


def static(name: str) -> str:
    """A file of the page."""
    return resources.files("vqvae2.app").joinpath("static", name).read_text(encoding="utf-8")
