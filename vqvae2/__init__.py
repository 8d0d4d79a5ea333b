"""VQ-VAE-2: hierarchical discrete codes, class-conditional priors, exact sampling.

    from vqvae2 import Pipeline

    pipeline = Pipeline.open("runs/cifar10")
    codes = pipeline.encode(images)               # a list, coarsest first
    images = pipeline.sample(["cat"] * 8).images

Each name below is imported from its module when it is first used, so `import vqvae2` takes
milliseconds and does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvae2.api import encode as encode
    from vqvae2.api import evaluate as evaluate
    from vqvae2.api import fit as fit
    from vqvae2.autoencoder import VQVAE as VQVAE
    from vqvae2.autoencoder import Codebook as Codebook
    from vqvae2.autoencoder import CodebookConfig as CodebookConfig
    from vqvae2.autoencoder import Pixels as Pixels
    from vqvae2.autoencoder import PixelsConfig as PixelsConfig
    from vqvae2.autoencoder import Quantized as Quantized
    from vqvae2.autoencoder import Reconstruction as Reconstruction
    from vqvae2.autoencoder import VQVAEConfig as VQVAEConfig
    from vqvae2.code_grid import CodeGrid as CodeGrid
    from vqvae2.data.config import DataConfig as DataConfig
    from vqvae2.data.images import load_images as load_images
    from vqvae2.pipeline import Pipeline as Pipeline
    from vqvae2.pipeline import PipelineConfig as PipelineConfig
    from vqvae2.pipeline import Samples as Samples
    from vqvae2.priors import DiagonalBiLSTMConfig as DiagonalBiLSTMConfig
    from vqvae2.priors import Domain as Domain
    from vqvae2.priors import GatedPixelCNNConfig as GatedPixelCNNConfig
    from vqvae2.priors import PixelCNNConfig as PixelCNNConfig
    from vqvae2.priors import PixelCNNPPConfig as PixelCNNPPConfig
    from vqvae2.priors import PixelSNAILConfig as PixelSNAILConfig
    from vqvae2.priors import Prior as Prior
    from vqvae2.priors import RowLSTMConfig as RowLSTMConfig
    from vqvae2.priors import TransformerConfig as TransformerConfig
    from vqvae2.priors.likelihood import Categorical as Categorical
    from vqvae2.priors.likelihood import LogisticMixture as LogisticMixture
    from vqvae2.runs.config import RunConfig as RunConfig
    from vqvae2.sampling import SamplingConfig as SamplingConfig
    from vqvae2.sampling import erase as erase
    from vqvae2.sampling import iterate_hierarchy as iterate_hierarchy
    from vqvae2.sampling import sample_hierarchy as sample_hierarchy
    from vqvae2.sampling import sample_level as sample_level
    from vqvae2.sampling import uniforms as uniforms

__version__ = "0.2.0"

_NAMES = {
    "api": "fit evaluate encode",
    "pipeline": "Pipeline PipelineConfig Samples",
    "autoencoder": "VQVAE VQVAEConfig Reconstruction Codebook CodebookConfig Quantized Pixels "
    "PixelsConfig",
    "priors": "Prior Domain GatedPixelCNNConfig PixelCNNConfig RowLSTMConfig "
    "DiagonalBiLSTMConfig PixelCNNPPConfig PixelSNAILConfig TransformerConfig",
    "code_grid": "CodeGrid",
    "priors.likelihood": "LogisticMixture Categorical",
    "runs.config": "RunConfig",
    "data.config": "DataConfig",
    "data.images": "load_images",
    "sampling": "SamplingConfig sample_level iterate_hierarchy sample_hierarchy erase uniforms",
}
"""The public names of each module; the imports above repeat them for type checkers."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = list(_MODULES)


if not TYPE_CHECKING:  # so that type checkers report unknown names

    def __getattr__(name: str) -> object:
        """Imports a public name on first use (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """All names, imported or not."""
    return sorted({*globals(), *_MODULES})
