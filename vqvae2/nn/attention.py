"""Causal multi-head attention over a map in raster order (arXiv 1706.03762, Sec. 3.2).

A position attends to itself and to all positions before it. For strict causality the input is
shifted first, as the priors do. Two modes compute the same: `forward` on complete maps, `step` on
one position with the cached keys and values of the past.

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions, `heads` x `size` = C.
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqvae2.nn.causal import RasterPosition, store
from vqvae2.precision import autocast_dtype

QUERY_CHUNK = 256
"""Queries whose logits are in memory at a time when logits are dropped."""


NUM_LENGTHS, MIN_LENGTH = 8, 64
"""On a GPU the newest position attends to one of so many numbers of keys, each a multiple of the
minimum: as many shapes, and so as many CUDA graphs, instead of one per position."""


def num_keys(index: int, num_positions: int) -> int:
    """Number of keys that position `index` of N reads on a GPU."""
    unit = -(-num_positions // (NUM_LENGTHS * MIN_LENGTH)) * MIN_LENGTH
    return min(num_positions, (index // unit + 1) * unit)


@dataclass(frozen=True)
class Prefix:
    """The positions up to the newest one, to which it attends; the same for all layers.

    Arguments:
        newest: index of the newest position, (1,) int64.
        length: number of keys that are read.
        mask: (length,), is added to the logits: -inf after the newest position, otherwise 0; None
            where it is the last of these keys.
    """

    newest: Tensor
    length: int
    mask: Tensor | None = None

    @classmethod
    def at(cls, position: RasterPosition, num_positions: int, dtype: torch.dtype) -> Self:
        """The prefix at a position of a map of N positions, for logits of a dtype.

        A CPU reads exactly the keys up to the position. Elsewhere shapes change seldom, so that
        one CUDA graph serves many positions, and later positions are masked.
        """
        newest = position.flat_index
        if newest.device.type == "cpu":
            return cls(newest, position.index + 1)
        return cls.masked(position, num_keys(position.index, num_positions), dtype)

    @classmethod
    def masked(cls, position: RasterPosition, length: int, dtype: torch.dtype) -> Self:
        """The prefix with a mask on the first `length` keys."""
        newest = position.flat_index
        later = torch.arange(length, device=newest.device) > newest
        zeros = torch.zeros(length, dtype=dtype, device=newest.device)
        return cls(newest, length, zeros.masked_fill_(later, float("-inf")))


@dataclass
class KeyValueCache:
    """Keys and values of all positions, (B, heads, N, size) each; zeros at later positions."""

    keys: Tensor
    values: Tensor

    @classmethod
    def new(cls, like: Tensor, shape: tuple[int, int, int], sizes: tuple[int, int]) -> Self:
        """An empty cache; under autocast in the dtype in which attention computes.

        Arguments:
            like: a tensor with the cache's device, and its dtype without autocast.
            shape: (B, heads, N).
            sizes: channels of a key and of a value.
        """
        dtype = autocast_dtype(like)
        keys, values = (like.new_zeros(*shape, size, dtype=dtype) for size in sizes)
        return cls(keys, values)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, prefix: Prefix) -> Tensor:
        """Stores one key and value, then attends with the query: (B, heads, 1, size of a value).

        Arguments:
            query, key, value: (B, heads, 1, size) each.
            prefix: ends with the position of the key and value.
        """
        store(self.keys, 2, prefix.newest, key)
        store(self.values, 2, prefix.newest, value)
        keys, values = self.keys[:, :, : prefix.length], self.values[:, :, : prefix.length]
        mask = None if prefix.mask is None else prefix.mask[None, None, None]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention over complete maps, (B, heads, N, size of a value).

    Arguments:
        queries, keys, values: (B, heads, N, size) each.
        dropout: probability of zeroing a logit (VQ-VAE-2, Sec. 3.2). A logit of zero does not
            exclude the position: softmax still gives it a share.
    """
    if not dropout:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    # Dropout needs explicit logits, but never N x N of them at once: chunks of queries attend to
    # the keys before them, and the backward pass computes the logits again.
    count = queries.shape[2]
    if count <= QUERY_CHUNK:
        return attend_rows(queries, keys, values, dropout)
    chunks = []
    for start in range(0, count, QUERY_CHUNK):
        end = min(start + QUERY_CHUNK, count)
        chunk = queries[:, :, start:end], keys[:, :, :end], values[:, :, :end]
        chunks.append(checkpoint(attend_rows, *chunk, dropout, use_reentrant=False))
    return torch.cat(chunks, dim=2)


def attend_rows(queries: Tensor, keys: Tensor, values: Tensor, dropout: float) -> Tensor:
    """Attention of the last M of N positions, (B, heads, M, size), with dropout of its logits."""
    logits = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
    offset = keys.shape[2] - queries.shape[2]
    future = logits.new_ones(logits.shape[2:], dtype=torch.bool).triu(1 + offset)
    logits = F.dropout(logits, dropout).masked_fill(future, float("-inf"))
    return logits.softmax(dim=3) @ values


class CausalAttention(nn.Module):
    """Self-attention with a residual connection: x + out(attend(x)).

    Arguments:
        channels: C.
        num_heads: number of heads; must divide C.
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
        heads = split_heads(self.queries_keys_values(rows), self.num_heads)
        attended = attend(*heads, dropout)
        mixed = self.out(attended.transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])

    def new_cache(self, batch: int, num_positions: int) -> KeyValueCache:
        """An empty cache for maps of N positions, with the dtype and device of the weights."""
        weight, size = self.out.weight, self.out.in_features // self.num_heads
        return KeyValueCache.new(weight, (batch, self.num_heads, num_positions), (size, size))

    def step(
        self, cache: KeyValueCache, x: Tensor, prefix: Prefix, out: Tensor | None = None
    ) -> Tensor:
        """One position, (B, C) to (B, C); stores its key and value in `cache`.

        Arguments:
            out: receives the result; None for a new tensor.
        """
        heads = split_heads(self.queries_keys_values(x[:, None]), self.num_heads)
        return torch.add(x, self.out(cache.attend(*heads, prefix).flatten(1)), out=out)


def split_heads(rows: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, 3C)."""
    split = rows.unflatten(2, (3, num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = split.unbind(0)
    return queries, keys, values


def require_heads(channels: int, num_heads: int) -> None:
    """Raises ValueError unless `num_heads` divides `channels`."""
    if num_heads < 1 or channels % num_heads:
        heads = max(1, num_heads)
        raise ValueError(
            f"Heads must divide the channels, got {channels} channels and {num_heads} heads; "
            f"use {max(1, channels // heads) * heads} channels."
        )
