"""A real browser and an app for it, for tests and for the trial of many users."""

import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome") or ""
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
NOISE = "ERR_ABORTED"  # a stream that ends because the answer is complete


def free_port() -> int:
    """A port that no program uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def app_process(
    *arguments: str, seconds: float = 300
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`vqvae2 app` in a process of its own; gives its address when it answers."""
    port = free_port()
    command = [sys.executable, "-m", "vqvae2", "app", "--port", str(port), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    address, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + seconds
    try:
        while not answers(address):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"The app did not start:\n{process.communicate()[0]}")
            time.sleep(0.1)
        yield address, process
    finally:
        process.terminate()
        process.communicate(timeout=30)  # which also closes its output


def answers(address: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


class Problems:
    """What a page must not do: console errors, failed requests, requests to other machines."""

    def __init__(self, page: Any, address: str) -> None:
        self.found: list[str] = []
        page.on("console", self.console)
        page.on("pageerror", lambda error: self.found.append(f"exception: {error}"))
        page.on("requestfailed", self.failed)
        page.on("request", lambda request: self.requested(request.url, address))

    def console(self, message: Any) -> None:
        """A message of the console."""
        if message.type == "error":
            self.found.append(f"console: {message.text}")

    def failed(self, request: Any) -> None:
        """A request without an answer."""
        if NOISE not in str(request.failure):
            self.found.append(f"failed: {request.url} {request.failure}")

    def requested(self, url: str, address: str) -> None:
        """A request; only those to the app are allowed."""
        if not url.startswith((address, "data:", "blob:")):
            self.found.append(f"to another machine: {url}")


def save_screenshot(page: Any, name: str) -> None:
    """Writes a screenshot of the whole page into the folder that SCREENSHOTS names, if any."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.wait_for_timeout(400)
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


def png_bytes(image: Any) -> bytes:
    """A PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
