"""Causal multi-head attention over a map in raster order (arXiv 1706.03762, Sec. 3.2).

A position attends to itself and all positions before it. Whoever needs strict causality shifts the
input, as the priors do. Two modes compute the same: `forward` on maps, `step` on one position with
the keys and values of the past.

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions, `heads` x `size` = C.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqvae2.nn.causal import Place

QUERIES_AT_ONCE = 256
"""Rows of logits that dropout holds at a time."""


@dataclass
class KeyValueCache:
    """Keys and values of all positions, (B, heads, N, size) each; those to come are unused."""

    keys: Tensor
    values: Tensor

    @classmethod
    def new(cls, like: Tensor, shape: tuple[int, int, int], sizes: tuple[int, int]) -> Self:
        """An empty cache of `like`'s dtype and device.

        Arguments:
            shape: (B, heads, N).
            sizes: of a key and of a value.
        """
        return cls(like.new_zeros(*shape, sizes[0]), like.new_zeros(*shape, sizes[1]))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, place: Place) -> Tensor:
        """Keeps a position's key and value and attends with its query.

        Arguments:
            query, key, value: (B, heads, 1, size) each.

        Returns:
            (B, heads, 1, size of a value).
        """
        self.keys.index_copy_(2, place.position, key)
        self.values.index_copy_(2, place.position, value)
        # A CPU reads no more keys than there are; elsewhere shapes stay, for one graph to serve
        # every position, and what is to come is masked.
        on_cpu = query.device.type == "cpu"
        return self.attend_to_first(query, place) if on_cpu else self.attend_masked(query, place)

    def attend_to_first(self, query: Tensor, place: Place) -> Tensor:
        """Attends to a view of what is kept so far."""
        first = slice(place.index + 1)
        return F.scaled_dot_product_attention(
            query, self.keys[:, :, first], self.values[:, :, first]
        )

    def attend_masked(self, query: Tensor, place: Place) -> Tensor:
        """The same by a mask over all positions."""
        seen = torch.arange(self.keys.shape[2], device=query.device) <= place.position
        return F.scaled_dot_product_attention(
            query, self.keys, self.values, attn_mask=seen[None, None, None]
        )


def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention of whole maps, (B, heads, N, size) each.

    Arguments:
        dropout: probability of zeroing a logit (VQ-VAE-2, Sec. 3.2). Zero means "no opinion", not
            "not seen": softmax still gives that position a share.
    """
    if not dropout:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    # Logits must exist to be dropped, but N x N of them never do: some rows at a time, against the
    # keys that they see, and once more for the gradient.
    count = queries.shape[2]
    if count <= QUERIES_AT_ONCE:
        return attend_rows(queries, keys, values, dropout)
    rows = []
    for first in range(0, count, QUERIES_AT_ONCE):
        end = min(first + QUERIES_AT_ONCE, count)
        part = queries[:, :, first:end], keys[:, :, :end], values[:, :, :end]
        rows.append(checkpoint(attend_rows, *part, dropout, use_reentrant=False))
    return torch.cat(rows, dim=2)


def attend_rows(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """Attention of the last M of N positions, (B, heads, M, size), with dropout of its logits."""
    logits = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
    before = keys.shape[2] - queries.shape[2]
    future = logits.new_ones(logits.shape[2:], dtype=torch.bool).triu(1 + before)
    logits = F.dropout(logits, dropout).masked_fill(future, float("-inf"))
    return logits.softmax(dim=3) @ values


class CausalAttention(nn.Module):
    """Self-attention with a residual connection: x + out(attend(x)).

    Arguments:
        channels: C.
        num_heads: heads; must divide C.
        dropout: probability of zeroing an attention logit in training.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        require_heads(channels, num_heads)
        self.num_heads, self.dropout = num_heads, dropout
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        rows = x.flatten(2).transpose(1, 2)
        dropout = self.dropout if self.training else 0.0
        attended = attend(*self._heads(rows), dropout)
        mixed = self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])
        return out

    def new_cache(self, batch: int, num_positions: int) -> KeyValueCache:
        """An empty cache for maps of N positions, in the weights' dtype and on their device."""
        weight, size = self.out.weight, self.out.in_features // self.num_heads
        return KeyValueCache.new(weight, (batch, self.num_heads, num_positions), (size, size))

    def step(self, cache: KeyValueCache, x: Tensor, place: Place) -> Tensor:
        """One position: x (B, C) to (B, C); keeps its key and value."""
        attended = cache.attend(*self._heads(x[:, None]), place)
        out: Tensor = x + self.out(attended.flatten(1))
        return out

    def _heads(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, C)."""
        split = self.queries_keys_values(rows).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values


def require_heads(channels: int, num_heads: int) -> None:
    """Raises ValueError unless the heads share the channels evenly."""
    if num_heads < 1 or channels % num_heads:
        heads = max(1, num_heads)
        raise ValueError(
            f"Heads must divide the channels, got {channels} channels and {num_heads} heads; "
            f"use {max(1, channels // heads) * heads} channels."
        )
