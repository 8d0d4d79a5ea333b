"""Likelihoods: how the parameters that a prior puts out become probabilities.

Legend: `B` batch, `K` codes or intensities, `H W` grid, `P` likelihood parameters, `M` mixture
components.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Categorical:
    """K codes with K logits; also called softmax likelihood."""

    @staticmethod
    def log_prob(params: Tensor, codes: Tensor) -> Tensor:
        """Log-probability in nats, (B, H, W), of codes (B, H, W) under logits (B, K, H, W)."""
        dtype = torch.promote_types(params.dtype, torch.float32)
        return -F.cross_entropy(params.to(dtype), codes, reduction="none")


@dataclass(frozen=True)
class LogisticMixture:
    """A discretised mixture of logistics over whole pixels (PixelCNN++, arXiv 1701.05517, Eq. 2).

    A component gives each colour a logistic distribution, integrated over the bin of every
    intensity; the mean of a colour moves linearly with the colours before it (R, G, B). Given
    those, the next colour's distribution is again a mixture, with the weights that Bayes' rule
    gives; `logits` tabulates it, so that it is drawn as codes are.

    Arguments:
        num_mixtures: M.
        channels: colours of a pixel, in their order.
        num_values: K, intensities of a colour, which stand for numbers from -1 to 1.
    """

    num_mixtures: int
    channels: int
    num_values: int = 256

    @property
    def num_params(self) -> int:
        """P: a weight a component, a mean and a scale a colour, a slope a pair of colours."""
        return self.num_mixtures * (1 + 2 * self.channels + self._pairs)

    @property
    def _pairs(self) -> int:
        return self.channels * (self.channels - 1) // 2

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability in nats of each colour given those before it, shaped as `values`.

        Arguments:
            params: (B, P, H, W).
            values: (B, H, W, channels) int64; their sum over the last axis is the pixel's.
        """
        params, colours = params.movedim(1, -1), values.unbind(-1)
        weights, total = self._weights(params), []
        for colour in range(self.channels):
            mean, log_scale = self._logistic(params, colours[:colour])
            weights = weights + self._bin(colours[colour][..., None], mean, log_scale)
            total.append(weights.logsumexp(dim=-1))
        joint = torch.stack(total, dim=-1)
        return joint.diff(dim=-1, prepend=torch.zeros_like(joint[..., :1]))

    def logits(self, params: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Log-probabilities (B, K) of the next colour.

        Arguments:
            params: (B, P).
            earlier: the pixel's colours so far, (B,) int64 each.
        """
        weights = self._weights(params)
        for colour, value in enumerate(earlier):
            mean, log_scale = self._logistic(params, earlier[:colour])
            weights = weights + self._bin(value[:, None], mean, log_scale)
        mean, log_scale = self._logistic(params, earlier)
        every = torch.arange(self.num_values, device=params.device)[:, None]
        bins = self._bin(every, mean[:, None], log_scale[:, None])
        return (weights.log_softmax(dim=-1)[:, None] + bins).logsumexp(dim=-1)

    def _weights(self, params: Tensor) -> Tensor:
        """Log-weights (..., M) of the components, in float32 at least."""
        weights = params[..., : self.num_mixtures]
        dtype = torch.promote_types(params.dtype, torch.float32)
        return weights.to(dtype).log_softmax(dim=-1)

    def _logistic(self, params: Tensor, earlier: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Means and log-scales, (..., M) each, of the colour after the `earlier` ones."""
        dtype, colour = torch.promote_types(params.dtype, torch.float32), len(earlier)
        # (..., 1 + 2 channels + pairs, M): weights, means, log-scales, slopes.
        table = params.to(dtype).unflatten(-1, (-1, self.num_mixtures))
        mean = table[..., 1 + colour, :]
        log_scale = table[..., 1 + self.channels + colour, :]
        first = 1 + 2 * self.channels + colour * (colour - 1) // 2
        for pair, value in enumerate(earlier):
            slope = table[..., first + pair, :].tanh()
            mean = mean + slope * self._number(value[..., None], dtype)
        # Narrower than this no bin is: it keeps the gradient of a sure component finite.
        return mean, log_scale.clamp_min(-7)

    def _number(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """The number from -1 to 1 that an intensity stands for."""
        return value.to(dtype) * (2 / (self.num_values - 1)) - 1

    def _bin(self, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Log-probability of the bin of `value`; the outermost bins reach to infinity.

        With s the logistic function and a > b its arguments at the bin's edges, s(a) - s(b) is
        s(a) s(-b) (1 - exp(b - a)): no difference of near numbers, however far out the bin.
        """
        half, sharp = 1 / (self.num_values - 1), (-log_scale).exp()
        centre = (self._number(value, mean.dtype) - mean) * sharp
        upper, lower = centre + half * sharp, centre - half * sharp
        inside = torch.log(-torch.expm1(-2 * half * sharp))
        below = torch.where(value == 0, 0.0, F.logsigmoid(-lower))
        above = torch.where(value == self.num_values - 1, 0.0, F.logsigmoid(upper))
        outermost = (value == 0) | (value == self.num_values - 1)
        return below + above + torch.where(outermost, 0.0, inside)
