"""Autoencoders: images to codes and back. Each is built by its config."""

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig, Quantized
from vqvae2.autoencoder.pixels import Pixels, PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAE, Reconstruction, VQVAEConfig

Autoencoder = VQVAE | Pixels
"""Every kind of autoencoder; all have `config`, `encode`, `decode` and `code_state`."""

AutoencoderConfig = VQVAEConfig | PixelsConfig
"""Every autoencoder's configuration; all have `num_levels`, `image_channels`, `grids`, `build`."""

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "VQVAE",
    "VQVAEConfig",
    "Reconstruction",
    "Codebook",
    "CodebookConfig",
    "Quantized",
    "Pixels",
    "PixelsConfig",
]
