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

from vqvae2.nn.causal import pointwise
from vqvae2.priors.domain import Domain
from vqvae2.priors.likelihood import Categorical, LogisticMixture


class Head(nn.Module, ABC):
    """The last layer of a prior, local to a position; networks end in their own activation."""

    @abstractmethod
    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Parameters (B, P, H, W) of maps of values, from features (B, F, H, W)."""

    @abstractmethod
    def begin(self, features: Tensor) -> Tensor:
        """What the values of one position share, (B, ...), from features (B, F)."""

    @abstractmethod
    def step(self, begun: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next value at one position.

        Arguments:
            begun: from `begin`.
            earlier: the position's values so far, (B,) each.
        """

    @abstractmethod
    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Log-probability in nats of each value, shaped as `values`."""


class CodeHead(Head):
    """A 1x1 convolution."""

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(num_features, domain.grid.num_codes, 1)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        return cast(Tensor, self.logits(features))

    def begin(self, features: Tensor) -> Tensor:
        """Logits (B, K)."""
        return pointwise(self.logits, features)

    def step(self, begun: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """The same logits: a position has one code."""
        return begun

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
            nn.Embedding(domain.grid.num_codes, num_features) for _ in range(pairs)
        )
        self.logits = nn.ModuleList(
            nn.Conv2d(num_features, domain.grid.num_codes, 1) for _ in range(domain.channels)
        )

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits (B, channels K, H, W), colour after colour."""
        hidden = self.hidden(features).chunk(self.domain.channels, dim=1)
        logits = []
        for colour, logit in enumerate(self.logits):
            h = hidden[colour]
            for embedding, value in zip(self._earlier(colour), values.unbind(-1), strict=False):
                h = h + embedding(value).movedim(-1, 1)
            logits.append(logit(F.relu(h)))
        return torch.cat(logits, dim=1)

    def begin(self, features: Tensor) -> Tensor:
        """Hidden channels of all colours, (B, channels F)."""
        return pointwise(self.hidden, features)

    def step(self, begun: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next colour."""
        colour = len(earlier)
        h = begun.chunk(self.domain.channels, dim=1)[colour]
        for embedding, value in zip(self._earlier(colour), earlier, strict=True):
            h = h + embedding(value)
        return pointwise(cast(nn.Conv2d, self.logits[colour]), F.relu(h))

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Shaped as `values`, (B, H, W, channels) or of grey pixels (B, H, W)."""
        logits = params.unflatten(1, (self.domain.channels, -1))
        colours = values.view(*values.shape[:3], -1).unbind(-1)
        pairs = zip(logits.unbind(1), colours, strict=True)
        nats = [Categorical.log_prob(*pair) for pair in pairs]
        return torch.stack(nats, dim=-1).view_as(values)

    def _earlier(self, colour: int) -> list[nn.Module]:
        """The embeddings of the colours before `colour`, for its logits."""
        first = colour * (colour - 1) // 2
        return list(self.earlier)[first : first + colour]


class MixtureHead(Head):
    """A 1x1 convolution to the parameters of a mixture over the pixel.

    In float32 also where the network runs in bfloat16, whose numbers near 1 are as far apart as
    half an intensity.
    """

    def __init__(self, domain: Domain, num_features: int) -> None:
        super().__init__()
        self.mixture = LogisticMixture(domain.num_mixtures, domain.channels, domain.grid.num_codes)
        self.params = nn.Conv2d(num_features, self.mixture.num_params, 1)

    def forward(self, features: Tensor, values: Tensor) -> Tensor:
        """Mixture parameters (B, P, H, W)."""
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.params(features.to(self.params.weight.dtype)))

    def begin(self, features: Tensor) -> Tensor:
        """Mixture parameters (B, P)."""
        return pointwise(self.params, features)

    def step(self, begun: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Logits (B, K) of the next colour."""
        return self.mixture.logits(begun, earlier)

    def log_prob(self, params: Tensor, values: Tensor) -> Tensor:
        """Shaped as `values`, (B, H, W, channels) or of grey pixels (B, H, W)."""
        colours = values.view(*values.shape[:3], -1)
        return self.mixture.log_prob(params, colours).view_as(values)
