"""Small models, networks and images that several tests share."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.autoencoder.codebook import CodebookConfig
from vqvae2.autoencoder.vqvae import VQVAE, VQVAEConfig
from vqvae2.data.synthetic import render
from vqvae2.imaging.convert import to_pil
from vqvae2.imaging.png import save_png

# Tiny tensors: a second thread costs more than it brings, above all beside other work.
torch.set_num_threads(1)

FACTORS = [(4,), (2, 4), (2, 2, 2)]
"""One, two and three levels."""


def small_config(factors: tuple[int, ...], num_codes: int = 24) -> VQVAEConfig:
    return VQVAEConfig(
        factors=factors,
        channels=16,
        residual_channels=8,
        num_residual_blocks=1,
        codebooks=(CodebookConfig(num_codes=num_codes, code_size=6),),
    )


def small_autoencoder(
    factors: tuple[int, ...], num_codes: int = 24, dtype: torch.dtype = torch.float64
) -> VQVAE:
    """An untrained autoencoder whose codebooks have started from images."""
    torch.manual_seed(0)
    model = VQVAE(small_config(factors, num_codes)).to(dtype).eval()
    model.start_codebooks(synthetic_images(32).to(dtype), torch.Generator().manual_seed(0))
    return model


def synthetic_images(count: int, size: int = 16, first: int = 0) -> Tensor:
    """Built-in images in [0, 1]."""
    return render(torch.arange(first, first + count), size, seed=0).images.float() / 255


class Network(torch.nn.Module):
    """With the calls of the Inception network."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 24, 5, stride=3)
        self.last = torch.nn.Linear(24, outputs)

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        pooled = torch.relu(self.conv(images.float() / 255)).mean(dim=[2, 3])
        return pooled if return_features else self.last(pooled * 20).softmax(dim=1)


def save_network(path: Path, outputs: int = 7) -> None:
    """A small TorchScript network, its weights by seed 0."""
    path.parent.mkdir(exist_ok=True)
    scripted(Network(outputs)).save(str(path))


def scripted(network: torch.nn.Module) -> torch.jit.ScriptModule:
    """A network as TorchScript."""
    with warnings.catch_warnings():
        # Deprecated, and still the form of the network that published figures are taken with.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(network)


def save_hub_classifier(folder: Path, kind: str) -> torch.nn.Linear:
    """An image classifier as the hub keeps it, of 3 classes; returns its last layer."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1], layer_type="basic", num_labels=3
        )
        network = transformers.ResNetForImageClassification(config)
    else:
        config = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
            image_size=16, patch_size=8, num_labels=3,
        )  # fmt: skip
        network = transformers.ViTForImageClassification(config)
    network.save_pretrained(folder)
    side = {"height": 16, "width": 16}
    transformers.ViTImageProcessorPil(size=side).save_pretrained(folder)
    return network.classifier if kind == "vit" else network.classifier[-1]


def make_folder(path: Path, count: int = 64, classes: int = 2) -> Path:
    """Images in a sub-folder a class, or flat with `classes` 0."""
    batch = render(torch.arange(count), 24, seed=3)
    for i, image in enumerate(batch.images):
        folder = path / f"class{i % classes}" if classes else path
        save_png(folder / f"{i:03d}.png", to_pil(image))
    return path
