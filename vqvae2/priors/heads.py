"""Heads: from the features of a position to the distribution of its values.

    CodeHead     K logits for one code
    PixelHead    K logits per channel, each channel given the earlier ones (PixelRNN, Sec. 2)
    MixtureHead  a discretised mixture of logistics over the pixel (PixelCNN++, Sec. 2.1)

Legend: `B` batch, `F` features, `P` likelihood parameters per position, `K` values, `M` hidden
channels, `H W` grid, `channels` values per position.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import pointwise
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block
from vqvae2.precision import without_autocast
from vqvae2.priors.domain import Domain
from vqvae2.priors.likelihood import Categorical, LogisticMixture


class Head(Block, ABC):
    """The last layer of a prior; each position is processed on its own.

    The features it receives have already passed an activation function. As a block it stores
    neither likelihood parameters, K per value, nor their softmax for the gradient.
    """

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Log-probability of each value of complete maps in nats, with the shape of `values`.

        Arguments:
            features: (B, F, H, W).
            values: (B, H, W) or (B, H, W, channels), int64.
        """
        return self.log_prob(self.distribution(features, values), values)

    @abstractmethod
    def distribution(self, features: Tensor, values: Tensor) -> Tensor:
        """Likelihood parameters (B, P, H, W) of complete maps.

        Arguments:
            features: (B, F, H, W).
            values: (B, H, W) or (B, H, W, channels), int64.
        """

    @abstractmethod
    def prepare(self, features: Tensor) -> Tensor:
        """What all values of one position share, (B, M), from features (B, F)."""

    @abstractmethod
    def step(self, prepared: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next value at one position.

        Arguments:
            prepared: (B, M), from `prepare`.
            earlier: the earlier values of the position, (B,) each.
        """

    @abstractmethod
    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability of each value in nats, with the shape of `values`.

        Arguments:
            params: (B, P, H, W), from `distribution`.
            values: (B, H, W) or (B, H, W, channels), int64.
        """


class CodeHead(Head):
    """A 1x1 convolution from F features to K logits."""

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(num_features, domain.grid.num_codes, 1)

    def distribution(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, K, H, W); `values` is not used."""
        return self.logits(features)

    def prepare(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        return pointwise(self.logits, features)

    def step(self, prepared: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The prepared logits: a position has one code."""
        return prepared

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability of each code in nats, (B, H, W)."""
        return Categorical.log_prob(params, values)


class PixelHead(Head):
    """One softmax per channel, given the features and the earlier channels of the pixel.

    PixelRNN masks channels in every layer. Here the network runs once per pixel and only the head
    once per channel, which factorises the same distribution.
    """

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.domain = domain
        self.hidden = nn.Conv2d(num_features, domain.channels * num_features, 1)
        num_pairs = domain.channels * (domain.channels - 1) // 2
        self.earlier = Modules(
            nn.Embedding(domain.grid.num_codes, num_features) for _ in range(num_pairs)
        )
        self.logits = Modules(
            nn.Conv2d(num_features, domain.grid.num_codes, 1) for _ in range(domain.channels)
        )

    def distribution(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, channels K, H, W), channel after channel."""
        hidden = self.hidden(features).chunk(self.domain.channels, dim=1)
        logits = []
        for channel, conv in enumerate(self.logits):
            h = hidden[channel]
            embeddings = self._embeddings(channel)
            for embedding, value in zip(embeddings, values.unbind(-1), strict=False):
                h = h + embedding(value).movedim(-1, 1)
            logits.append(conv(F.relu(h)))
        return torch.cat(logits, dim=1)

    def prepare(self, features: Tensor) -> Tensor:
        """Hidden channels of all channels of the pixel, (B, channels F)."""
        return pointwise(self.hidden, features)

    def step(self, prepared: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next channel."""
        channel = len(earlier)
        h = prepared.chunk(self.domain.channels, dim=1)[channel]
        for embedding, value in zip(self._embeddings(channel), earlier, strict=True):
            h = h + embedding(value)
        return pointwise(self.logits[channel], F.relu(h))

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability of each channel in nats, with the shape of `values`."""
        logits = params.unflatten(1, (self.domain.channels, -1))
        channels = values.view(*values.shape[:3], -1).unbind(-1)
        pairs = zip(logits.unbind(1), channels, strict=True)
        nats = [Categorical.log_prob(*pair) for pair in pairs]
        return torch.stack(nats, dim=-1).view_as(values)

    def _embeddings(self, channel: int) -> list[nn.Embedding]:
        """The embeddings of the channels before `channel`, for its logits."""
        start = channel * (channel - 1) // 2
        return list(self.earlier)[start : start + channel]


class MixtureHead(Head):
    """A 1x1 convolution to the parameters of a mixture over the pixel.

    It runs in float32 even where the network runs in bfloat16, whose spacing near 1 is half of an
    intensity.
    """

    needs_float32 = True

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        num_values = domain.grid.num_codes
        self.mixture = LogisticMixture(domain.num_mixtures, domain.channels, num_values)
        self.params = nn.Conv2d(num_features, self.mixture.num_params, 1)

    def distribution(self, features: Tensor, values: Tensor) -> Tensor:
        """Mixture parameters (B, P, H, W); `values` is not used."""
        with without_autocast(features):
            return self.params(features.to(self.params.weight.dtype))

    def prepare(self, features: Tensor) -> Tensor:
        """Mixture parameters (B, P)."""
        with without_autocast(features):
            return pointwise(self.params, features.to(self.params.weight.dtype))

    def step(self, prepared: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next channel."""
        return self.mixture.logits(prepared, earlier)

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability of each channel in nats, with the shape of `values`."""
        pixels = values.view(*values.shape[:3], -1)
        return self.mixture.log_prob(params, pixels).view_as(values)
