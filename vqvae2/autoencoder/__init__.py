"""Autoencoders: images to codes and back. Each is built by its config."""

from vqvae2.autoencoder.codebook import Codebook as Codebook
from vqvae2.autoencoder.codebook import CodebookConfig as CodebookConfig
from vqvae2.autoencoder.codebook import Quantized as Quantized
from vqvae2.autoencoder.pixels import Pixels as Pixels
from vqvae2.autoencoder.pixels import PixelsConfig as PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAE as VQVAE
from vqvae2.autoencoder.vqvae import Reconstruction as Reconstruction
from vqvae2.autoencoder.vqvae import VQVAEConfig as VQVAEConfig

Autoencoder = VQVAE | Pixels
"""Every kind of autoencoder; all have `config`, `encode`, `decode` and `code_state`."""

AutoencoderConfig = VQVAEConfig | PixelsConfig
"""Every autoencoder's configuration; all have `num_levels`, `image_channels`, `grids`, `build`."""
