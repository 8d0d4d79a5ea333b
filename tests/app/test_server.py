"""The server: who may use it, what it gives away, and how it ends."""

import gc
import socket
import threading
import urllib.error
import urllib.parse
import urllib.request

import pytest
from tiny_pipelines import KINDS

pytest.importorskip("gradio", reason="the app needs gradio: pip install 'vqvae2[app]'")

from vqvae2.app.server import ServerOptions, description, serving

# Gradio leaves event loops and sockets unclosed.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected():
    """Its unclosed objects are collected here, where their warnings are ignored."""
    yield
    gc.collect()


@pytest.fixture
def server(catalogue):
    with serving(catalogue("two levels"), ServerOptions(port=free_port())) as address:
        yield address


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(address):
    try:
        with urllib.request.urlopen(address, timeout=20) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def test_the_page_fetches_nothing_from_elsewhere_and_gives_no_files_away(server, tmp_path):
    assert server.startswith("http://127.0.0.1:")
    status, headers, body = get(server)
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert b"fonts.googleapis" not in body
    for path in (tmp_path / "two levels" / "config.json", "/etc/passwd", __file__):
        status, _, body = get(f"{server}gradio_api/file={urllib.parse.quote(str(path))}")
        assert status == 403, path
    # A second app on the same port says so.
    port = int(server.rstrip("/").rpartition(":")[2])
    from vqvae2.app.models import Catalogue

    models = Catalogue([str(tmp_path / "two levels")])
    with pytest.raises(ValueError, match=f"Port {port} cannot be used; another app"):
        with serving(models, ServerOptions(port=port)):
            pass
    assert get(server)[0] == 200
    assert threading.active_count() < 100


def test_with_a_password_nothing_is_shown_without_a_login(catalogue):
    options = ServerOptions(port=free_port(), password="secret")
    with serving(catalogue("no classes"), options) as address:
        assert b"parameters" not in get(address)[2]
        assert get(f"{address}config")[0] == 401


@pytest.mark.parametrize("options", [{"host": "0.0.0.0"}, {"share": True}])
def test_other_machines_need_a_password(options):
    with pytest.raises(ValueError, match="set a password"):
        ServerOptions(**options)
    assert ServerOptions(**options, password="secret").password == "secret"


def test_a_port_out_of_range_is_refused():
    with pytest.raises(ValueError, match="--port must be from 1 to 65535, got 70000"):
        ServerOptions(port=70_000)


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_built_for_every_kind_of_model(kind, catalogue):
    from vqvae2.app.server import build_page
    from vqvae2.imaging.uploads import UploadLimits

    models = catalogue(kind)
    build_page(models, UploadLimits())
    text = description(models, kind)
    assert ("this model cannot draw images yet" in text) == (kind == "no priors")
