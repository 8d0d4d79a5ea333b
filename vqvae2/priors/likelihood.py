"""Likelihoods: how the parameters that a prior puts out become probabilities and samples.

Legend: `B` batch, `K` codes or intensities, `H W` grid, `P` likelihood parameters, `M` mixture
components.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How codes are drawn from a distribution; the defaults change nothing.

    Arguments:
        temperature: logits are divided by it; 0 takes the most probable code.
        top_k: keep the K most probable codes; None keeps all.
        top_p: keep the fewest codes that together have this probability; 1 keeps all.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that no distribution has."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(
                f"Temperature must be 0 (most probable code) or more, got {self.temperature}."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(
                f"top-k must keep at least 1 code, got {self.top_k}; leave it out to keep all."
            )
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top-p must be in (0, 1], got {self.top_p}; 1 keeps all codes.")


class Categorical:
    """K codes with K logits; also called softmax likelihood."""

    @staticmethod
    def log_prob(params: Tensor, codes: Tensor) -> Tensor:
        """Log-probability in nats, (B, H, W), of codes (B, H, W) under logits (B, K, H, W)."""
        dtype = torch.promote_types(params.dtype, torch.float32)
        return -F.cross_entropy(params.to(dtype), codes, reduction="none")

    @staticmethod
    def sample(params: Tensor, uniform: Tensor, draw: SamplingConfig) -> Tensor:
        """Codes (B,) from logits (B, K) by inverting the distribution function.

        Arguments:
            uniform: (B,) in [0, 1), float64 where there is: each image's own noise, so that its
                code does not depend on its neighbours in the batch.
        """
        if draw.temperature == 0:
            return params.argmax(dim=1)
        probabilities = kept(params.to(uniform.dtype) / draw.temperature, draw).softmax(dim=1)
        cumulative = probabilities.cumsum(dim=1)
        total = cumulative[:, -1:].contiguous()
        codes = torch.searchsorted(cumulative, uniform[:, None] * total, right=True)
        # uniform < 1, but its product with the total may round to the total: take the last code
        # that is kept then.
        return torch.minimum(codes, torch.searchsorted(cumulative, total))[:, 0]


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


def kept(logits: Tensor, draw: SamplingConfig) -> Tensor:
    """Logits (B, K) with -inf for the codes that top-k and top-p leave out."""
    if draw.top_k is not None and draw.top_k < logits.shape[1]:
        smallest = logits.topk(draw.top_k, dim=1).values[:, -1:]
        logits = logits.masked_fill(logits < smallest, -math.inf)
    if draw.top_p < 1:
        ordered, order = logits.sort(dim=1, descending=True)
        probabilities = ordered.softmax(dim=1)
        # What stands before a code decides, so that the most probable one always stays.
        beyond = probabilities.cumsum(dim=1) - probabilities >= draw.top_p
        logits = logits.masked_fill(beyond.scatter(1, order, beyond), -math.inf)
    return logits
