"""Networks that look at images for us, behind one door, and images streamed through them.

    a path        a TorchScript module with the calls of `inception-2015-12-05.pt`:
                  net(images) gives class probabilities,
                  net(images, return_features=True) gives pooled features
    a URL         the same, fetched once; that Inception network by default
    hub:NAME      an image classifier of the hub or in a folder (package `transformers`)

A published figure is compared only with one of the same network: every figure carries its name.

Legend: `B` images, `H W` sides, `D` features, `K` classes.
"""

import hashlib
import os
import shutil
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqvae2.files import PART_SUFFIX, cache_folder
from vqvae2.weights import fingerprint

INCEPTION = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
"""The network of the published Inception figures, as the authors of StyleGAN 2 ADA serve it."""

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


@dataclass(frozen=True)
class Extractor:
    """A network as metrics use it.

    Arguments:
        name: part of the name of every figure taken with it.
        digest: of the file's or the weights' bytes; figures and caches carry it.
        features: (B, D) of images (B, 3, H, W) uint8.
        probabilities: (B, K) of the same; rows sum to one.
    """

    name: str
    digest: str
    features: Callable[[Tensor], Tensor]
    probabilities: Callable[[Tensor], Tensor]


def open_extractor(where: str = "", name: str = "", device: str = "cpu") -> Extractor:
    """The network at a path, a URL or on the hub; see the file's text.

    Arguments:
        where: "" is the Inception network.
        name: how figures call it; the file's name without its ending by default.
    """
    if where.startswith("hub:"):
        return hub_classifier(where.removeprefix("hub:"), name, device)
    if not where:
        return torchscript(fetch(INCEPTION, INCEPTION_SHA256), name or "Inception", device)
    path = fetch(where) if "://" in where else Path(where)
    return torchscript(path, name or path.stem, device)


def torchscript(path: Path, name: str, device: str = "cpu") -> Extractor:
    """A TorchScript module from a file."""
    if not path.is_file():
        raise ValueError(
            f"There is no network at {path}; give the path or URL of a TorchScript file, or "
            "hub:NAME for an image classifier of the hub."
        )
    try:
        with warnings.catch_warnings():
            # Deprecated, and still the form of the network that published figures are taken with.
            warnings.simplefilter("ignore", DeprecationWarning)
            network: Any = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(f"{path} is not a TorchScript network ({reason}).") from None
    for weight in network.parameters():
        weight.requires_grad_(False)

    def call(images: Tensor, **options: bool) -> Tensor:
        try:
            found: Tensor = network(images.to(device), **options)
        except RuntimeError as error:
            lines = [line for line in str(error).strip().split("\n") if line.strip()]
            raise ValueError(f"The network {name} failed on images: {lines[-1]}") from None
        return found

    return Extractor(
        name=name,
        digest=file_digest(path),
        features=lambda images: checked(call(images, return_features=True), images, name),
        probabilities=lambda images: checked(call(images), images, name),
    )


def hub_classifier(model: str, name: str = "", device: str = "cpu") -> Extractor:
    """A classifier of the hub or in a folder; features are what its last layer is given."""
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError:
        raise ValueError(
            "Classifiers of the hub need the package transformers: pip install 'vqvae2[hub]'."
        ) from None
    try:
        # Pillow resizes without aliasing, the same on every machine.
        processor = AutoImageProcessor.from_pretrained(model, backend="pil")
        network = AutoModelForImageClassification.from_pretrained(model).to(device).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"The hub gave no image classifier {model!r} ({reason})") from None
    name = name or model.rstrip("/").split("/")[-1]
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))

    def call(images: Tensor) -> tuple[Tensor, Tensor]:
        inputs = processor(list(images.cpu()), return_tensors="pt").to(device)
        logits: Tensor = network(**inputs).logits
        return seen.pop(), logits.softmax(dim=1)

    return Extractor(
        name=name,
        digest=f"{fingerprint(network)}-{text_digest(processor.to_json_string())}",
        features=lambda images: checked(call(images)[0], images, name),
        probabilities=lambda images: checked(call(images)[1], images, name),
    )


def checked(found: Tensor, images: Tensor, name: str) -> Tensor:
    """What a network gave, if it is a finite row a image; ValueError says what it is."""
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(images):
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"The network {name} must give one row of numbers a image, ({len(images)}, D), got "
            f"{shape}."
        )
    if not torch.isfinite(found).all():
        bad = int((~torch.isfinite(found).all(dim=1)).sum())
        raise ValueError(
            f"The network {name} gives numbers that are none (NaN or infinite) for {bad} of "
            f"{len(images)} images; no figure can be taken with it."
        )
    return found


@torch.no_grad()
def stream(extract: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Rows (B, D) float64 on the CPU for each batch of images (B, 3, H, W) uint8."""
    for images in batches:
        yield extract(images).cpu().double()


def fetch(url: str, sha256: str = "") -> Path:
    """A file of the web, kept in the cache; one line if it cannot be had or is another."""
    # Files of one name from two places are two files.
    path = cache_folder() / "networks" / text_digest(url) / url.rsplit("/", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
        try:
            with urllib.request.urlopen(url, timeout=30) as answer, part.open("wb") as file:
                shutil.copyfileobj(answer, file)
            part.replace(path)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ValueError(
                f"{url} could not be fetched ({error}); fetch it where there is a connection and "
                "give the path of the file instead."
            ) from None
        finally:
            part.unlink(missing_ok=True)
    found = file_digest(path)
    if sha256 and found != sha256:
        raise ValueError(f"{path} has sha256 {found}, expected {sha256}; remove it and try again.")
    return path


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
