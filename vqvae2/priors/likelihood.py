"""Likelihoods: log-probabilities of values under the parameters that a head computes.

Legend: `B` batch, `K` codes or intensities, `H W` grid, `P` likelihood parameters per position,
`M` mixture components.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


class Categorical:
    """A softmax over K codes."""

    @staticmethod
    def log_prob(params: Tensor, codes: Tensor) -> Tensor:
        """Log-probability in nats, (B, H, W), of codes (B, H, W) under logits (B, K, H, W)."""
        return -F.cross_entropy(at_least_float32(params), codes, reduction="none")


@dataclass(frozen=True)
class LogisticMixture:
    """A discretised mixture of logistics over pixels (PixelCNN++, arXiv 1701.05517, Eq. 2).

    A component gives each channel a logistic distribution, integrated over the bin of every
    intensity. The mean of a channel depends linearly on the earlier channels (R, G, B). Given
    these, the distribution of the next channel is again a mixture, with weights from Bayes' rule;
    `logits` tabulates it, so that it is sampled like a code.

    Arguments:
        num_mixtures: M.
        channels: channels of a pixel.
        num_values: K, intensities per channel, on a scale from -1 to 1.
    """

    num_mixtures: int
    channels: int
    num_values: int = 256

    @property
    def num_params(self) -> int:
        """P: per component a weight, per channel a mean and scale, per channel pair a slope."""
        num_pairs = self.channels * (self.channels - 1) // 2
        return self.num_mixtures * (1 + 2 * self.channels + num_pairs)

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability in nats of each channel given the earlier ones.

        Arguments:
            params: (B, P, H, W).
            values: (B, H, W, channels) int64.

        Returns:
            The shape of `values`; the sum over the last axis is the pixel's log-probability.
        """
        params, channels = at_least_float32(params).movedim(1, -1), values.unbind(-1)
        weights, joint = params[..., : self.num_mixtures].log_softmax(dim=-1), []
        for channel in range(self.channels):
            mean, log_scale = self._logistic(params, channels[:channel])
            weights = weights + self._bin(channels[channel][..., None], mean, log_scale)
            joint.append(weights.logsumexp(dim=-1))
        total = torch.stack(joint, dim=-1)
        return total.diff(dim=-1, prepend=torch.zeros_like(total[..., :1]))

    def logits(self, params: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Log-probability (B, K) of each intensity of the next channel.

        Arguments:
            params: (B, P).
            earlier: the earlier channels of the pixel, (B,) int64 each.
        """
        params = at_least_float32(params)
        weights = params[..., : self.num_mixtures].log_softmax(dim=-1)
        for channel, value in enumerate(earlier):
            mean, log_scale = self._logistic(params, earlier[:channel])
            weights = weights + self._bin(value[:, None], mean, log_scale)
        mean, log_scale = self._logistic(params, earlier)
        intensities = torch.arange(self.num_values, device=params.device)[:, None]
        bins = self._bin(intensities, mean[:, None], log_scale[:, None])
        return (weights.log_softmax(dim=-1)[:, None] + bins).logsumexp(dim=-1)

    def _logistic(self, params: Tensor, earlier: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Means and log-scales, (..., M) each, of the channel after `earlier`."""
        channel = len(earlier)
        # (..., 1 + 2 channels + pairs, M): weights, means, log-scales, slopes.
        table = params.unflatten(-1, (-1, self.num_mixtures))
        mean = table[..., 1 + channel, :]
        log_scale = table[..., 1 + self.channels + channel, :]
        start = 1 + 2 * self.channels + channel * (channel - 1) // 2
        for pair, value in enumerate(earlier):
            slope = table[..., start + pair, :].tanh()
            mean = mean + slope * self._scaled(value[..., None], params.dtype)
        # The bound keeps the gradient finite where a component is certain; e^-7 is narrower than
        # a bin.
        return mean, log_scale.clamp_min(-7)

    def _scaled(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Intensities in [0, K) on the scale from -1 to 1."""
        return value.to(dtype) * (2 / (self.num_values - 1)) - 1

    def _bin(self, value: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
        """Log-probability of the bin of `value`; the outermost bins extend to infinity.

        With s the logistic function and a > b its arguments at the edges of the bin, s(a) - s(b)
        equals s(a) s(-b) (1 - exp(b - a)), which is accurate however far the bin is from the mean.
        """
        half, sharpness = 1 / (self.num_values - 1), (-log_scale).exp()
        centre = (self._scaled(value, mean.dtype) - mean) * sharpness
        upper, lower = centre + half * sharpness, centre - half * sharpness
        inside = torch.log(-torch.expm1(-2 * half * sharpness))
        below = torch.where(value == 0, 0.0, F.logsigmoid(-lower))
        above = torch.where(value == self.num_values - 1, 0.0, F.logsigmoid(upper))
        outermost = (value == 0) | (value == self.num_values - 1)
        return below + above + torch.where(outermost, 0.0, inside)


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in its own type where that is more precise."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
