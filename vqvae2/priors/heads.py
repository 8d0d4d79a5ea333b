"""From features of a position to the parameters of its values' distribution.

    CodeHead     K logits of one code
    PixelHead    K logits a colour, each colour given those before it (PixelRNN, Sec. 2)
    MixtureHead  a discretised mixture of logistics over the whole pixel (PixelCNN++, Sec. 2.1)

Legend: `B` batch, `F` features, `P` parameters a position, `K` values, `M` hidden channels,
`H W` grid.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.likelihood import Categorical, LogisticMixture
from vqvae2.nn.causal import pointwise
from vqvae2.priors.domain import Domain


class Head(nn.Module, ABC):
    """The last layers of a prior, local to a position."""

    @abstractmethod
    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Parameters (B, P, H, W) of maps of values, from features (B, F, H, W)."""

    @abstractmethod
    def step(self, features: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next value at one position.

        Arguments:
            features: (B, F).
            earlier: the position's values so far, (B,) each.
        """

    @abstractmethod
    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability in nats of each value, shaped as `values`."""


class CodeHead(Head):
    """ReLU and a 1x1 convolution."""

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(num_features, domain.num_codes, 1)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        return cast(Tensor, self.logits(F.relu(features)))

    def step(self, features: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K)."""
        return pointwise(self.logits, F.relu(features))

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """(B, H, W)."""
        return Categorical.log_prob(params, values)


class PixelHead(Head):
    """A softmax a colour: the features say what the pixel is, earlier colours what it still is.

    PixelRNN masks colours in every layer; here the network runs once a pixel and only the head
    once a colour, which factorises the same distribution.
    """

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.domain = domain
        self.hidden = nn.Conv2d(num_features, domain.channels * num_features, 1)
        pairs = domain.channels * (domain.channels - 1) // 2
        self.earlier = nn.ModuleList(
            nn.Embedding(domain.num_codes, num_features) for _ in range(pairs)
        )
        self.logits = nn.ModuleList(
            nn.Conv2d(num_features, domain.num_codes, 1) for _ in range(domain.channels)
        )

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, channels K, H, W), colour after colour."""
        hidden = self.hidden(F.relu(features)).chunk(self.domain.channels, dim=1)
        logits = []
        for colour, logit in enumerate(self.logits):
            h = hidden[colour]
            for embedding, value in zip(self._earlier(colour), values.unbind(-1), strict=False):
                h = h + embedding(value).movedim(-1, 1)
            logits.append(logit(F.relu(h)))
        return torch.cat(logits, dim=1)

    def step(self, features: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next colour."""
        colour, width = len(earlier), features.shape[1]
        rows = slice(colour * width, (colour + 1) * width)
        weight, bias = self.hidden.weight[rows].flatten(1), cast(Tensor, self.hidden.bias)[rows]
        h = F.linear(F.relu(features), weight, bias)
        for embedding, value in zip(self._earlier(colour), earlier, strict=True):
            h = h + embedding(value)
        return pointwise(cast(nn.Conv2d, self.logits[colour]), F.relu(h))

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """(B, H, W, channels)."""
        logits = params.chunk(self.domain.channels, dim=1)
        pairs = zip(logits, values.unbind(-1), strict=True)
        return torch.stack([Categorical.log_prob(*pair) for pair in pairs], dim=-1)

    def _earlier(self, colour: int) -> list[nn.Module]:
        """The embeddings of the colours before `colour`, for its logits."""
        first = colour * (colour - 1) // 2
        return list(self.earlier)[first : first + colour]


class MixtureHead(Head):
    """ReLU and a 1x1 convolution to the parameters of a mixture over the pixel."""

    def __init__(self, domain: Domain, num_features: int, num_mixtures: int) -> None:
        super().__init__()
        self.mixture = LogisticMixture(num_mixtures, domain.channels, domain.num_codes)
        self.params = nn.Conv2d(num_features, self.mixture.num_params, 1)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Mixture parameters (B, P, H, W)."""
        return cast(Tensor, self.params(F.relu(features)))

    def step(self, features: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next colour."""
        return self.mixture.logits(pointwise(self.params, F.relu(features)), earlier)

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """(B, H, W) of grey pixels, (B, H, W, channels) of coloured ones."""
        colours = values.unsqueeze(-1) if self.mixture.channels == 1 else values
        nats = self.mixture.log_prob(params, colours)
        return nats.view_as(values)
