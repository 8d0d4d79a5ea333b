"""Autoregressive priors, one per level; each architecture is one file and one line below."""

from vqvae2.priors.diagonal_bilstm import DiagonalBiLSTMConfig as DiagonalBiLSTMConfig
from vqvae2.priors.domain import Domain as Domain
from vqvae2.priors.gated_pixelcnn import GatedPixelCNNConfig as GatedPixelCNNConfig
from vqvae2.priors.network import PriorConfig as PriorConfig
from vqvae2.priors.pixelcnn import PixelCNNConfig as PixelCNNConfig
from vqvae2.priors.pixelcnnpp import PixelCNNPPConfig as PixelCNNPPConfig
from vqvae2.priors.pixelsnail import PixelSNAILConfig as PixelSNAILConfig
from vqvae2.priors.prior import Prior as Prior
from vqvae2.priors.row_lstm import RowLSTMConfig as RowLSTMConfig
from vqvae2.priors.transformer import TransformerConfig as TransformerConfig
