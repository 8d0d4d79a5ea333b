"""Autoregressive priors over codes, one a level: the promise, then one file an architecture."""

from vqvae2.priors.gated_pixelcnn import GatedPixelCNN, GatedPixelCNNConfig
from vqvae2.priors.prior import Domain, Prior

PriorConfig = GatedPixelCNNConfig
"""Every architecture's configuration; its type chooses the architecture."""


def build_prior(config: PriorConfig, domain: Domain) -> Prior:
    """The prior that `config` describes, over `domain`."""
    return GatedPixelCNN(config, domain)


__all__ = [
    "Domain",
    "GatedPixelCNN",
    "GatedPixelCNNConfig",
    "Prior",
    "PriorConfig",
    "build_prior",
]
