"""Autoregressive priors, one a level: what they share, then one file an architecture."""

from vqvae2.priors.diagonal_bilstm import DiagonalBiLSTMConfig
from vqvae2.priors.domain import Domain
from vqvae2.priors.gated_pixelcnn import GatedPixelCNNConfig
from vqvae2.priors.pixelcnn import PixelCNNConfig
from vqvae2.priors.pixelcnnpp import PixelCNNPPConfig
from vqvae2.priors.pixelsnail import PixelSNAILConfig
from vqvae2.priors.prior import Prior, PriorConfig
from vqvae2.priors.row_lstm import RowLSTMConfig
from vqvae2.priors.transformer import TransformerConfig

__all__ = [
    "DiagonalBiLSTMConfig",
    "Domain",
    "GatedPixelCNNConfig",
    "PixelCNNConfig",
    "PixelCNNPPConfig",
    "PixelSNAILConfig",
    "Prior",
    "PriorConfig",
    "RowLSTMConfig",
    "TransformerConfig",
]
