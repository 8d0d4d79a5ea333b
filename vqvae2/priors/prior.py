"""A prior: one distribution over maps, computed for a whole map or value by value.

    p(values | labels, coarser codes) = prod_k p(value_k | values before k, context)

Values come in raster order, the colours of a pixel one after the other. A prior is an embedding of
the values, the context, an architecture of the family (`Network`) and a head; the architecture is
chosen by the type of its config.

Legend: `B` batch, `K` values, `H W` grid, `P` likelihood parameters a position.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vqvae2.priors.conditioning import Conditioning
from vqvae2.priors.domain import Domain
from vqvae2.priors.embedding import ValueEmbedding
from vqvae2.priors.heads import CodeHead, Head, MixtureHead, PixelHead
from vqvae2.priors.network import NetworkCache, PriorConfig


@dataclass
class PriorCache:
    """The state between two steps.

    Arguments:
        index: values done.
        network: the architecture's own.
        begun: (B, ...), what the head has made of the position that the next value belongs to.
        values: (B, channels), the last value of each colour.
    """

    index: int
    network: NetworkCache
    begun: Tensor
    values: Tensor


class Prior(nn.Module):
    """An autoregressive distribution over the values of one level, codes or pixels.

    Arguments:
        config: the architecture.
        domain: what it is a distribution over, and given what.
    """

    def __init__(self, config: PriorConfig, domain: Domain) -> None:
        super().__init__()
        self.config, self.domain = config, domain
        self.conditioning = Conditioning(
            domain, config.channels, config.num_conditioning_blocks, config.dropout
        )
        self.values = ValueEmbedding(domain, config.channels)
        self.network = config.network(domain.grid.shape)
        self.head = new_head(domain, self.network.num_features)

    def embed_context(self, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Embeds what the prior is conditioned on, once.

        Arguments:
            labels: (B,) int64.
            coarser: codes (B, H, W) int64 of every coarser level, coarsest first.

        Returns:
            The context (B, C, H, W), or (B, C, 1, 1) on the coarsest level.
        """
        return cast(Tensor, self.conditioning(labels, coarser))

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Likelihood parameters (B, P, H, W) of whole maps, for training.

        Arguments:
            values: (B, H, W) codes, or (B, H, W, channels) pixels, int64.
            context: from `embed_context`.
        """
        features = self.network(self.values(values), context)
        return cast(Tensor, self.head(features, values))

    def new_cache(self, context: Tensor, batch: int) -> PriorCache:
        """The state that `step` advances, at the first value of `batch` maps."""
        context = context.expand(batch, -1, -1, -1)
        return PriorCache(
            index=0,
            network=self.network.new_cache(context, batch),
            begun=torch.zeros_like(
                self.head.begin(context.new_zeros(batch, self.network.num_features))
            ),
            values=torch.zeros(
                batch, self.domain.channels, dtype=torch.int64, device=context.device
            ),
        )

    def step(self, cache: PriorCache, previous: Tensor) -> Tensor:
        """Logits (B, K) of the next value; advances `cache`.

        Arguments:
            cache: from `new_cache`, owned by the caller.
            previous: (B,) int64, the value before; ignored at the first.
        """
        channels = self.domain.channels
        colour = cache.index % channels
        cache.values[:, colour - 1] = previous
        if colour == 0:
            before = self.values.at(cache.values if channels > 1 else previous)
            if cache.index == 0:
                # Nothing stands before the first position, whatever `previous` says.
                before = torch.zeros_like(before)
            cache.begun.copy_(self.head.begin(self.network.step(cache.network, before)))
        cache.index += 1
        return self.head.step(cache.begun, cache.values[:, :colour].unbind(1))

    def phase(self, cache: PriorCache) -> Hashable:
        """Steps of equal phase do the same operations on the same tensors."""
        colour = cache.index % self.domain.channels
        return cache.index == 0, colour, self.network.phase(cache.network) if colour == 0 else None

    def skip(self, cache: PriorCache) -> None:
        """Counts a step that the device has done without the host."""
        cache.network.place.index += cache.index % self.domain.channels == 0
        cache.index += 1

    def log_prob(self, values: Tensor, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Log-probability in nats of each value given all before it, shaped as `values`."""
        context = self.embed_context(labels, coarser)
        return self.head.log_prob(self(values, context), values)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device


def new_head(domain: Domain, num_features: int) -> Head:
    """The head for codes, or for pixels by a softmax or a mixture."""
    if not domain.ordered:
        return CodeHead(domain, num_features)
    kind = MixtureHead if domain.num_mixtures else PixelHead
    return kind(domain, num_features)
