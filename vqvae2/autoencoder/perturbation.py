"""Latent perturbation: some codes replaced by near ones before they are decoded.

It makes a decoder tolerate the errors of priors (arXiv 2509.12474).

Legend: `B` batch, `D` code size, `H W` grid.
"""

from torch import Tensor

from vqvae2.autoencoder.codebook import Codebook, Quantized

NUM_NEIGHBOURS = 12
"""Codes by which latent perturbation may replace a code: the nearest ones."""


def perturbed(codebook: Codebook, quantized: Quantized, neighbours: Tensor) -> Tensor:
    """The vectors (B, D, H, W) of a level with some codes replaced by near ones.

    Gradients pass as through the vectors that are replaced.

    Arguments:
        codebook: of the level.
        quantized: its result.
        neighbours: (B, H, W) int64 in [0, NUM_NEIGHBOURS]: the code itself, the nearest, ...
    """
    table = codebook.neighbours(min(NUM_NEIGHBOURS, codebook.config.num_codes - 1))
    codes = table[quantized.codes, neighbours.clamp_max(table.shape[1] - 1)]
    change = codebook.embed(codes) - codebook.embed(quantized.codes)
    return quantized.vectors + change.detach().to(quantized.vectors.dtype)
