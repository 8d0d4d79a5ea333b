"""The networks of the perceptual loss: trained here, or loaded.

A network that is a loss must not judge the images; `vqvae2 evaluate` takes another one.
"""

from collections.abc import Generator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vqvae2.configuration import to_dict
from vqvae2.files import read_json
from vqvae2.imaging.convert import to_float
from vqvae2.metrics.classifier import ResNet, ResNetMaps, classifier_steps, require_classes
from vqvae2.metrics.efficientnet import EFFICIENTNET, load_efficientnet_lite0
from vqvae2.metrics.extractors import file_digest, load_torchscript
from vqvae2.runs.decoder import CLASSIFIER, DecoderStageConfig, PerceptualConfig
from vqvae2.saving import VERSION, load_module, save_module
from vqvae2.training.session import Event, Stopped, TrainingSession
from vqvae2.weights import fingerprint

FORMAT = "vqvae2-classifier"


def perceptual_network(
    session: TrainingSession, config: DecoderStageConfig
) -> Generator[Event, None, nn.Module | None]:
    """The network of a perceptual loss, which maps images to feature maps and logits.

    Returns:
        The network on the CPU; None without a perceptual loss.

    Raises:
        ValueError: the network is missing or gives NaN.
        Stopped: while a classifier was trained, which begins again then.
    """
    if not config.network_name:
        return None
    if config.network_name != CLASSIFIER:
        return load_network(config.network_name)
    network = yield from trained_classifier(session, config.perceptual)
    require_usable(network, CLASSIFIER, session)
    return network


def require_perceptual(session: TrainingSession, config: DecoderStageConfig) -> None:
    """Raises ValueError, before anything is trained, for a network that cannot be used."""
    if not config.network_name:
        return
    if config.network_name == CLASSIFIER:
        labels, num_classes = session.splits.train.labels, session.config.num_classes
        require_classes(labels.bincount(minlength=num_classes))
    else:
        name = config.network_name
        require_usable(load_network(name), name, session)


def trained_classifier(
    session: TrainingSession, config: PerceptualConfig
) -> Generator[Event, None, nn.Module]:
    """A classifier of the run's own classes; every process trains it, the main one keeps it."""
    folder, world = session.folder.classifier, session.world
    num_classes, size = session.config.num_classes, session.config.data.size
    if not world.any(is_trained(folder, config)):
        training, dataset = config.classifier, session.splits.train
        steps = classifier_steps(dataset, num_classes, training, session.device)
        model = next(steps)
        for step in range(1, training.steps + 1):
            yield Event("decoder", step, training.steps, split="classifier")
            if world.any(session.should_stop()) and step < training.steps:
                raise Stopped
            next(steps, None)
        if world.is_main:
            save_module(folder, FORMAT, {"config": to_dict(config)}, model.cpu())
    world.barrier()
    build = partial(ResNet, num_classes, config.classifier.depth, size)
    return ResNetMaps(load_module(folder, build, config))


def is_trained(folder: Path, config: PerceptualConfig) -> bool:
    """Whether a folder has the classifier of a config."""
    path = folder / "config.json"
    return path.is_file() and read_json(path, FORMAT, VERSION) == {"config": to_dict(config)}


class ScriptedFeatures(nn.Module):
    """The pooled features of a network of `vqvae2.metrics.extractors`, for images in [0, 1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features (B, D) of images (B, 3, S, S)."""
        return [self.network(255 * images, return_features=True)]


def load_network(name: str) -> nn.Module:
    """A network by its name or path.

    Raises:
        ValueError: it is missing or not readable.
    """
    if name == EFFICIENTNET:
        return load_efficientnet_lite0()
    if not Path(name).is_file():
        raise ValueError(
            f"decoder.perceptual.network must be {CLASSIFIER}, {EFFICIENTNET} or the path of a "
            f"TorchScript file, got {name!r}, which does not exist."
        )
    return ScriptedFeatures(load_torchscript(Path(name)))


def digest_of(network: nn.Module, name: str) -> str:
    """The digest that an extractor of the same network has."""
    if isinstance(network, ScriptedFeatures):
        return file_digest(Path(name))
    return fingerprint(network.model if isinstance(network, ResNetMaps) else network)


def require_usable(network: nn.Module, name: str, session: TrainingSession) -> None:
    """Raises ValueError unless a network gives finite outputs and gradients for real images."""
    images = to_float(session.splits.train.batch(torch.arange(1))).requires_grad_()
    outputs = network.eval()(images)
    total = torch.stack([output.float().square().mean() for output in outputs]).sum()
    if total.requires_grad:
        total.backward()
    if images.grad is None or not total.isfinite() or not images.grad.isfinite().all():
        reason = "NaN or infinite values" if images.grad is not None else "no gradient"
        raise ValueError(
            f"The perceptual network {name} gives {reason} for images of the run; use another "
            "one, or none with decoder.perceptual_weight 0."
        )
    network.zero_grad(set_to_none=True)
