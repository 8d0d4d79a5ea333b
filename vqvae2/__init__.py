"""VQ-VAE-2: hierarchical discrete codes, class-conditional priors, exact sampling.

    from vqvae2 import Pipeline

    pipeline = Pipeline.load("runs/cifar10")
    codes = pipeline.encode(images)               # a list, coarsest first
    images = pipeline.sample(["cat"] * 8).images

Importing needs torch alone.
"""

from vqvae2.autoencoder.codebook import Codebook, CodebookConfig, Quantized
from vqvae2.autoencoder.pixels import Pixels, PixelsConfig
from vqvae2.autoencoder.vqvae import VQVAE, Reconstruction, VQVAEConfig
from vqvae2.pipeline import Pipeline, PipelineConfig, Samples
from vqvae2.priors import (
    DiagonalBiLSTMConfig,
    Domain,
    GatedPixelCNNConfig,
    PixelCNNConfig,
    PixelCNNPPConfig,
    PixelSNAILConfig,
    Prior,
    RowLSTMConfig,
    TransformerConfig,
)
from vqvae2.priors.likelihood import Categorical, LogisticMixture, SamplingConfig
from vqvae2.sampling.hierarchy import (
    erase,
    iterate_hierarchy,
    sample_hierarchy,
    sample_level,
    uniforms,
)

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
    "PixelCNNConfig",
    "RowLSTMConfig",
    "DiagonalBiLSTMConfig",
    "PixelCNNPPConfig",
    "PixelSNAILConfig",
    "TransformerConfig",
    "Pixels",
    "PixelsConfig",
    "LogisticMixture",
    "Categorical",
    "SamplingConfig",
    "sample_level",
    "iterate_hierarchy",
    "sample_hierarchy",
    "erase",
    "uniforms",
]
