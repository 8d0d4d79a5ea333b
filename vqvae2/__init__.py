"""VQ-VAE-2: hierarchical discrete codes, class-conditional priors, exact sampling.

    from vqvae2 import Pipeline

    pipeline = Pipeline.load("runs/cifar10")
    codes = pipeline.encode(images)               # a list, coarsest first
    pictures = pipeline.sample(["cat"] * 8).images

Importing needs torch alone.
"""

from vqvae2.autoencoder import VQVAE, Reconstruction, VQVAEConfig
from vqvae2.codebook import Codebook, CodebookConfig, Quantized
from vqvae2.likelihood import Categorical, Draw
from vqvae2.pipeline import Pipeline, PipelineConfig, Samples
from vqvae2.priors import Domain, GatedPixelCNNConfig, Prior
from vqvae2.sampling import draw_hierarchy, draw_level, sample_hierarchy, uniforms

__version__ = "0.1.0"

__all__ = [
    "Pipeline",
    "PipelineConfig",
    "Samples",
    "VQVAE",
    "VQVAEConfig",
    "Reconstruction",
    "Codebook",
    "CodebookConfig",
    "Quantized",
    "Prior",
    "Domain",
    "GatedPixelCNNConfig",
    "Categorical",
    "Draw",
    "draw_level",
    "draw_hierarchy",
    "sample_hierarchy",
    "uniforms",
]
