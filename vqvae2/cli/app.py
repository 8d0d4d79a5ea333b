"""`vqvae2 app`: a local web page that samples, edits and explains models."""

import os
import webbrowser
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

import tyro

from vqvae2.cli.device import AUTO, resolve
from vqvae2.cli.display import console
from vqvae2.cli.options import Device, optional, parse
from vqvae2.weights import pretrained_names

DEFAULT_MODEL = "cifar10"


@dataclass(frozen=True)
class Options:
    """Open a web page on this machine: draw images, edit them, see their codes, compare runs.

    Arguments:
        models: Run folders, or folders or names of saved pipelines; by default the trained model
            of this package.
        port: Where the page is; 0 takes the first free port from 7860.
        host: Address to listen on. The default can be reached from this machine alone; another
            one needs a password.
        share: Also open a public link, through the servers of Gradio; needs a password.
        password: Asked for by a login, with the user name vqvae2. The variable
            VQVAE2_APP_PASSWORD does the same and is not visible in the list of processes.
        browser: Open the page in a browser.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
    """

    models: Annotated[tuple[str, ...], tyro.conf.Positional, optional("RUN ...")] = ()
    port: int = 0
    host: str = "127.0.0.1"
    share: bool = False
    password: Annotated[str, optional("TEXT")] = ""
    browser: bool = False
    device: Device = AUTO


def main(arguments: list[str]) -> None:
    """Serves the page until it is stopped."""
    options = parse(Options, "app", arguments)
    require_gradio()
    sources = options.models or (default_model(),)
    from vqvae2.app.models import Catalogue
    from vqvae2.app.server import ServerOptions, serving, wait

    password = options.password or os.environ.get("VQVAE2_APP_PASSWORD", "")
    server = ServerOptions(options.host, options.port, options.share, password)
    catalogue = Catalogue(sources, resolve(options.device))
    with serving(catalogue, server) as address:
        console.print(f"{address}  (Ctrl-C stops the app)")
        if options.browser:
            webbrowser.open(address)
        wait()


def require_gradio() -> None:
    """Raises ValueError without the packages of the app."""
    if find_spec("gradio") is None:
        raise ValueError("The app needs one more package: pip install 'vqvae2[app]'")


def default_model() -> str:
    """The model that is shown when none is named."""
    names = pretrained_names()
    if not names:
        raise ValueError(
            "This version of the package contains no trained model: name a run folder, as in "
            "`vqvae2 app runs/demo` (`vqvae2 demo` makes one in minutes)."
        )
    return DEFAULT_MODEL if DEFAULT_MODEL in names else names[0]
