"""How sharp a set of images is beside another: spectra and gradients, which see blur.

Legend: `B N` images, `C` channels, `H W` sides, `R` frequencies, `M` bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vqvae2.distributed import SINGLE_PROCESS, World
from vqvae2.metrics.gradient_histogram import gradient_distance, gradient_histograms
from vqvae2.metrics.spectrum import radial_spectra, spectral_distance


@dataclass(frozen=True)
class Sharpness:
    """Spectra and gradients of images, or their means over a set.

    Arguments:
        spectra: (N, R) power per frequency.
        gradients: (N, M) shares of positions by the magnitude of their gradient.
    """

    spectra: Tensor
    gradients: Tensor

    @classmethod
    def of(cls, images: Tensor) -> "Sharpness":
        """Of each of images (B, C, H, W) in [0, 1]."""
        return cls(radial_spectra(images), gradient_histograms(images))

    def distances(self, other: "Sharpness") -> dict[str, float]:
        """How far the means of two sets are apart, by the name of the metric."""
        spectra = self.spectra.double().mean(dim=0), other.spectra.double().mean(dim=0)
        gradients = self.gradients.double().mean(dim=0), other.gradients.double().mean(dim=0)
        return {
            "spectral_distance_db": spectral_distance(*spectra),
            "gradient_distance": gradient_distance(*gradients),
        }


class MeanSharpness:
    """The mean sharpness of a set that comes in batches; its memory does not grow."""

    def __init__(self) -> None:
        self.spectra: Tensor | None = None
        self.gradients = torch.zeros(())
        self.count = 0

    def add(self, images: Tensor) -> None:
        """Adds images (B, C, H, W) in [0, 1]; their device is not waited for."""
        sharpness = Sharpness.of(images)
        spectra, gradients = sharpness.spectra.sum(dim=0), sharpness.gradients.sum(dim=0)
        if self.spectra is None:
            self.spectra, self.gradients = torch.zeros_like(spectra), torch.zeros_like(gradients)
        self.spectra += spectra
        self.gradients += gradients
        self.count += len(images)

    def mean(self, world: World = SINGLE_PROCESS) -> Sharpness:
        """The mean over all processes, (1, R) and (1, M); each process needs an image."""
        assert self.spectra is not None, "no images were added"
        count = float(world.sum(torch.tensor([float(self.count)])))
        sums = world.sum(self.spectra.cpu()), world.sum(self.gradients.cpu())
        return Sharpness(sums[0][None] / count, sums[1][None] / count)
