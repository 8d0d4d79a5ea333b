"""A prior: one distribution over maps, evaluated on complete maps or value by value.

    p(values | labels, coarser codes) = prod_k p(value_k | values before k, context)

Values come in raster order, the channels of a pixel one after the other. A prior consists of the
conditioning, an embedding of the values, a network and a head; the type of its configuration
decides the network.

Legend: `B` batch, `K` values, `H W` grid, `P` likelihood parameters per position.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqvae2.nn.causal import RasterPosition
from vqvae2.precision import without_autocast
from vqvae2.priors.conditioning import Conditioning
from vqvae2.priors.domain import Domain
from vqvae2.priors.embedding import ValueEmbedding
from vqvae2.priors.heads import CodeHead, Head, MixtureHead, PixelHead
from vqvae2.priors.network import PriorConfig, zero_state


@dataclass
class PriorCache:
    """The state of a prior between two steps.

    Arguments:
        index: values that are done.
        position: of the next value.
        newest: index of the value that was done last, (1,) int64 on the device.
        context: (B, C, H or 1, W or 1).
        network: the state of the network.
        prepared: (B, ...), from `Head.prepare`, for the position of the next value.
        values: the last value of each channel, (B, channels).
    """

    index: int
    position: RasterPosition
    newest: Tensor
    context: Tensor
    network: object
    prepared: Tensor
    values: Tensor


class Prior(nn.Module):
    """An autoregressive distribution over the values of one level: codes or pixels.

    Arguments:
        config: the architecture.
        domain: the modelled values and what they are conditioned on.
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
        """Embeds what the prior is conditioned on.

        Arguments:
            labels: (B,) int64.
            coarser: codes (B, H, W) int64 of each coarser level, coarsest first.

        Returns:
            The context: (B, C, H, W), or (B, C, 1, 1) on the coarsest level.
        """
        return self.conditioning(labels, coarser)

    def forward(self, values: Tensor, context: Tensor) -> Tensor:
        """Likelihood parameters (B, P, H, W) of complete maps.

        Arguments:
            values: codes (B, H, W) or pixels (B, H, W, channels), int64.
            context: from `embed_context`.
        """
        return self.head.distribution(self.features(values, context), values)

    def features(self, values: Tensor, context: Tensor, visible: Tensor | None = None) -> Tensor:
        """The network's features (B, F, H, W) of complete maps.

        Arguments:
            values, context: as of `forward`.
            visible: (B, H, W) booleans; positions that are False enter the network as zeros. None
                shows all.
        """
        embedded = self.values(values)
        if visible is not None:
            embedded = embedded * visible[:, None]
        return self.network(embedded, context)

    def new_cache(self, context: Tensor, batch: int) -> PriorCache:
        """The cache before the first value of `batch` maps."""
        context = context.to(self.values.vectors.weight.dtype).expand(batch, -1, -1, -1)
        features = context.new_zeros(batch, self.network.num_features)
        position = RasterPosition.start(self.domain.grid.shape, context.device)
        newest = position.previous_index
        if self.domain.channels > 1:
            newest = torch.full_like(newest, -1)
        return PriorCache(
            index=0,
            position=position,
            newest=newest,
            context=context,
            network=self.network.new_cache(batch),
            prepared=torch.zeros_like(self.head.prepare(features)),
            values=torch.zeros(
                batch, self.domain.channels, dtype=torch.int64, device=context.device
            ),
        )

    @torch.no_grad()
    def step(self, cache: PriorCache, previous: Tensor) -> Tensor:
        """Logits (B, K) of the next value; advances `cache`.

        Arguments:
            cache: from `new_cache`, owned by the caller.
            previous: the value before, (B,) int64; ignored at the first value.
        """
        num_channels = self.domain.channels
        channel = cache.index % num_channels
        if num_channels > 1:
            cache.newest += 1
            cache.values[:, channel - 1] = previous
        # Autocast would convert the weights at every position.
        with without_autocast(previous):
            if channel == 0:
                prepared = self._step_position(cache, previous)
            else:
                prepared = cache.prepared
            cache.index += 1
            return self.head.step(prepared, cache.values[:, :channel].unbind(1))

    def _step_position(self, cache: PriorCache, previous: Tensor) -> Tensor:
        """What the values of the next position share, (B, M); advances the position."""
        num_channels = self.domain.channels
        embedded = self.values.embed(cache.values if num_channels > 1 else previous)
        if cache.index == 0:
            # The first position has no past, whatever `previous` holds.
            embedded = torch.zeros_like(embedded)
        features = self.network.step(cache.network, embedded, cache.context, cache.position)
        cache.position.advance()
        prepared = self.head.prepare(features)
        if num_channels > 1:
            cache.prepared.copy_(prepared)
        return prepared

    def phase(self, cache: PriorCache) -> Hashable:
        """Identifies the operations of the next step; see `Network.phase`."""
        channel = cache.index % self.domain.channels
        network = self.network.phase(cache.position) if channel == 0 else None
        return cache.index == 0, channel, network

    def skip(self, cache: PriorCache) -> None:
        """Advances the counters on the host for a step that ran on the device alone."""
        cache.position.index += cache.index % self.domain.channels == 0
        cache.index += 1

    def restart(self, cache: PriorCache) -> None:
        """Returns `cache` to the first value, in place; its context stays."""
        cache.index = 0
        cache.position.move_to(0)
        if self.domain.channels > 1:
            cache.newest.fill_(-1)
        for state in (cache.network, cache.prepared, cache.values):
            zero_state(state)

    def log_prob(
        self,
        values: Tensor,
        labels: Tensor,
        coarser: Sequence[Tensor],
        visible: Tensor | None = None,
    ) -> Tensor:
        """Log-probability in nats of each value given all before it, with the shape of `values`.

        Arguments:
            values: codes (B, H, W) or pixels (B, H, W, channels), int64.
            labels, coarser: as in `embed_context`.
            visible: as of `features`; given only the values before that are visible.
        """
        context = self.embed_context(labels, coarser)
        return self.head(self.features(values, context, visible), values)

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device


def new_head(domain: Domain, num_features: int) -> Head:
    """The head for codes, or for pixels with a softmax per channel or a mixture."""
    if not domain.ordered:
        return CodeHead(domain, num_features)
    return (MixtureHead if domain.num_mixtures else PixelHead)(domain, num_features)
