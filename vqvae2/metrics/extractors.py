"""Feature extractors: networks that map images to features and class probabilities.

    a path        a TorchScript module with the calls of `inception-2015-12-05.pt`:
                  net(images) gives class probabilities,
                  net(images, return_features=True) gives pooled features
    a URL         the same, fetched once; that Inception network by default
    hub:NAME      an image classifier of the hub or in a folder (package `transformers`)
    efficientnet-lite0
                  EfficientNet-Lite0 of ImageNet, from a package that contains its weights; smaller
                  images are brought to 128 pixels

A published value is compared only with one of the same network: every metric carries its name.

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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.files import PART_SUFFIX, cache_folder
from vqvae2.metrics.efficientnet import EFFICIENTNET, SMALLEST_SIDE, load_efficientnet_lite0
from vqvae2.transfers import to_device
from vqvae2.weights import fingerprint

INCEPTION = (
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
    "inception-2015-12-05.pt"
)
"""The network of published FIDs, as the authors of StyleGAN 2 ADA serve it."""

INCEPTION_SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"


@dataclass(frozen=True)
class Outputs:
    """What a network gives for a batch of images.

    Arguments:
        features: (B, D).
        probabilities: (B, K); rows sum to one.
    """

    features: Tensor
    probabilities: Tensor


@dataclass(frozen=True)
class Extractor:
    """A network that gives features and class probabilities.

    Arguments:
        name: part of the name of every metric computed with it.
        digest: of the bytes of the file or of the weights; results and caches carry it.
        network: both outputs for images (B, 3, H, W) uint8 of any device, by one pass.
    """

    name: str
    digest: str
    network: Callable[[Tensor], Outputs]

    def outputs(self, images: Tensor) -> Outputs:
        """Both outputs on the device of the network; their values are not read."""
        outputs = self.network(images)
        for rows in (outputs.features, outputs.probabilities):
            require_rows(rows, images, self.name)
        return outputs

    def features(self, images: Tensor) -> Tensor:
        """Finite features (B, D)."""
        return require_finite(self.outputs(images).features, self.name)

    def probabilities(self, images: Tensor) -> Tensor:
        """Finite probabilities (B, K)."""
        return require_finite(self.outputs(images).probabilities, self.name)


def open_extractor(where: str = "", name: str = "", device: str = "cpu") -> Extractor:
    """Opens the network at a path, a URL or on the hub.

    Arguments:
        where: path, URL, `hub:NAME` or efficientnet-lite0; "" is the Inception network.
        name: of the extractor; the file's name without its ending by default.
        device: where the network runs.
    """
    if where.startswith("hub:"):
        return hub_classifier(where.removeprefix("hub:"), name, device)
    if where == EFFICIENTNET:
        return efficientnet(name or where, device)
    if not where:
        return torchscript(fetch(INCEPTION, INCEPTION_SHA256), name or "Inception", device)
    path = fetch(where) if "://" in where else Path(where)
    return torchscript(path, name or path.stem, device)


def torchscript(path: Path, name: str, device: str = "cpu") -> Extractor:
    """Loads a TorchScript module."""
    if not path.is_file():
        raise ValueError(
            f"There is no network at {path}; give the path or URL of a TorchScript file, or "
            "hub:NAME for an image classifier of the hub."
        )
    network = load_torchscript(path, device)
    return Extractor(name, file_digest(path), TorchScriptNetwork(network, name, device))


def load_torchscript(path: Path, device: str = "cpu") -> nn.Module:
    """The frozen module in a TorchScript file; ValueError if it is not readable."""
    try:
        with warnings.catch_warnings():
            # Deprecated, but the format of the network of published FIDs.
            warnings.simplefilter("ignore", DeprecationWarning)
            network: nn.Module = torch.jit.load(str(path), map_location=device).eval()
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        raise ValueError(f"{path} is not a TorchScript network ({reason}).") from None
    for weight in network.parameters():
        weight.requires_grad_(False)
    return network


class TorchScriptNetwork:
    """The outputs of a TorchScript module that gives features or probabilities at a call.

    Where a linear layer of the module and a softmax turn its features into its probabilities, as
    the first batch shows, that layer saves the second call.
    """

    def __init__(self, module: nn.Module, name: str, device: str) -> None:
        self.module, self.name, self.device = module, name, device
        self.last: nn.Module | None = None
        self.is_known = False

    def __call__(self, images: Tensor) -> Outputs:
        """Both outputs for images (B, 3, H, W) uint8."""
        images = to_device(images, self.device)
        features = self._call(images, return_features=True)
        if not self.is_known:
            probabilities = self._call(images)
            self.last, self.is_known = last_layer(self.module, features, probabilities), True
        elif self.last is not None:
            probabilities = self.last(features).softmax(dim=1)
        else:
            probabilities = self._call(images)
        return Outputs(features, probabilities)

    def _call(self, images: Tensor, **options: bool) -> Tensor:
        try:
            output: Tensor = self.module(images, **options)
        except RuntimeError as error:
            lines = [line for line in str(error).strip().split("\n") if line.strip()]
            raise ValueError(f"The network {self.name} failed on images: {lines[-1]}") from None
        return require_rows(output, images, self.name)


def last_layer(module: nn.Module, features: Tensor, probabilities: Tensor) -> nn.Module | None:
    """The linear layer of a TorchScript module that turns features into logits, if there is one.

    Arguments:
        features: (B, D).
        probabilities: (B, K), of the same images.
    """
    for layer in reversed(list(module.modules())):
        shapes = [tuple(weight.shape) for weight in layer.parameters()]
        is_linear = getattr(layer, "original_name", "") == "Linear"
        if is_linear and (probabilities.shape[1], features.shape[1]) in shapes:
            # To the bit: a layer that is nearly right would change results.
            if torch.equal(layer(features).softmax(dim=1), probabilities):
                return layer
    return None


def hub_classifier(model: str, name: str = "", device: str = "cpu") -> Extractor:
    """Loads a classifier of the hub or of a folder; features are the input of its last layer."""
    try:
        from transformers import AutoImageProcessor, AutoModelForImageClassification
    except ImportError:
        raise ValueError(
            "Classifiers of the hub need the package transformers: pip install 'vqvae2[hub]'."
        ) from None
    try:
        # Pillow resizes without aliasing and identically on every machine.
        processor = AutoImageProcessor.from_pretrained(model, backend="pil")
        network = AutoModelForImageClassification.from_pretrained(model).to(device).eval()
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"The hub gave no image classifier {model!r} ({reason})") from None
    name = name or model.rstrip("/").split("/")[-1]
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    inputs_of_last: list[Tensor] = []
    last.register_forward_pre_hook(lambda _, inputs: inputs_of_last.append(inputs[0]))

    def call(images: Tensor) -> Outputs:
        inputs = processor(list(images.cpu()), return_tensors="pt").to(device)
        probabilities = network(**inputs).logits.softmax(dim=1)
        return Outputs(inputs_of_last.pop(), probabilities)

    digest = f"{fingerprint(network)}-{text_digest(processor.to_json_string())}"
    return Extractor(name, digest, call)


def efficientnet(name: str, device: str = "cpu") -> Extractor:
    """EfficientNet-Lite0; features are the input of its last layer."""
    network = load_efficientnet_lite0().to(device).requires_grad_(False)

    def call(images: Tensor) -> Outputs:
        pixels = to_device(images, device).float() / 255
        if min(pixels.shape[2:]) < SMALLEST_SIDE:
            size = (SMALLEST_SIDE, SMALLEST_SIDE)
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        features = network.pooled(pixels)
        return Outputs(features, network.logits(features).softmax(dim=1))

    return Extractor(name, fingerprint(network), call)


def require_rows(output: Tensor, images: Tensor, name: str) -> Tensor:
    """The output of a network; ValueError unless it is one row per image."""
    if not isinstance(output, Tensor) or output.ndim != 2 or len(output) != len(images):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"The network {name} must give one row of numbers per image, ({len(images)}, D), got "
            f"{shape}."
        )
    return output


def require_finite(output: Tensor, name: str) -> Tensor:
    """The output (B, D) of a network; ValueError for NaN or inf, which waits for its device."""
    if not torch.isfinite(output).all():
        bad = int((~torch.isfinite(output).all(dim=1)).sum())
        raise ValueError(
            f"The network {name} gives NaN or inf for {bad} of {len(output)} images; use another "
            "network."
        )
    return output


@torch.no_grad()
def stream(extract: Callable[[Tensor], Tensor], batches: Iterable[Tensor]) -> Iterator[Tensor]:
    """Rows (B, D) float64 on the CPU for each batch of images (B, 3, H, W) uint8."""
    for images in batches:
        yield extract(images).cpu().double()


def fetch(url: str, sha256: str = "") -> Path:
    """Downloads a file into the cache, once.

    Raises:
        ValueError: the download failed, or the file does not have the expected `sha256`.
    """
    # By URL, so that equal names from two places do not collide.
    path = cache_folder() / "networks" / text_digest(url) / url.rsplit("/", 1)[-1]
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}{PART_SUFFIX}")
        try:
            with urllib.request.urlopen(url, timeout=30) as response, part.open("wb") as file:
                shutil.copyfileobj(response, file)
            part.replace(path)
        except (urllib.error.URLError, OSError, ValueError) as error:
            raise ValueError(
                f"{url} could not be downloaded ({error}); download it where there is a "
                "connection and give the path of the file instead."
            ) from None
        finally:
            part.unlink(missing_ok=True)
    digest = file_digest(path)
    if sha256 and digest != sha256:
        raise ValueError(
            f"{path} has sha256 {digest}, expected {sha256}; remove it and try again."
        )
    return path


def file_digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(text: str) -> str:
    """A short digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
