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
from vqvae2.nn.recompute import Block

QUERY_CHUNK = 256
"""Queries whose logits are in memory at a time where attention is not fused."""


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
    def at(cls, position: RasterPosition, mask: Tensor) -> Self:
        """The prefix at a position; positions come in raster order.

        A CPU reads exactly the keys up to the position. Elsewhere shapes change seldom, so that
        one CUDA graph serves many positions, and later positions are masked.

        Arguments:
            mask: of all N positions, from `new_mask`; updated in place.
        """
        if position.flat_index.device.type == "cpu":
            return cls(position.flat_index, position.index + 1)
        return cls.masked(position, mask, num_keys(position.index, len(mask)))

    @classmethod
    def masked(cls, position: RasterPosition, mask: Tensor, length: int) -> Self:
        """The prefix with a mask on the first `length` keys."""
        if position.index == 0:
            mask.fill_(float("-inf"))
        mask.index_fill_(0, position.flat_index, 0.0)
        return cls(position.flat_index, length, mask[:length])


def new_mask(like: Tensor, num_positions: int) -> Tensor:
    """A mask for `Prefix.at`, (N,), with the device and dtype of a tensor."""
    return like.new_zeros(num_positions)


@dataclass
class KeyValueCache:
    """Keys and values of all positions, (B, heads, N, size) each; zeros at later positions."""

    keys: Tensor
    values: Tensor

    @classmethod
    def new(cls, like: Tensor, shape: tuple[int, int, int], sizes: tuple[int, int]) -> Self:
        """An empty cache; float32 in place of bfloat16 on a CPU, whose products would copy it.

        Arguments:
            like: a tensor with the device and dtype of keys and values.
            shape: (B, heads, N).
            sizes: channels of a key and of a value.
        """
        copies = like.device.type == "cpu" and like.dtype == torch.bfloat16
        dtype = torch.float32 if copies else like.dtype
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
        if prefix.mask is None:
            # For a single query two products are faster than torch's attention on a CPU.
            scaled = query.to(keys.dtype) * query.shape[3] ** -0.5
            weights = (scaled @ keys.transpose(2, 3)).softmax(dim=3)
            return (weights @ values).to(query.dtype)
        mask = prefix.mask[None, None, None]
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


def attend(queries: Tensor, keys: Tensor, values: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal attention over complete maps, (B, heads, N, size of a value).

    Arguments:
        queries, keys, values: (B, heads, N, size) each.
        dropout: probability of zeroing a logit (VQ-VAE-2, Sec. 3.2). A logit of zero does not
            exclude the position: softmax still gives it a share.
    """
    # On a CPU, torch's fused attention needs keys and values of one size.
    is_fused = queries.shape[3] == values.shape[3] or not values.is_cpu
    if is_fused and not dropout:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    # Otherwise there are explicit logits, but never N x N of them at once: chunks of queries
    # attend to the keys before them, and the backward pass computes the logits again.
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


class CausalAttention(Block):
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
        self,
        cache: KeyValueCache,
        x: Tensor,
        prefix: Prefix,
        bias: Tensor,
        out: Tensor | None = None,
    ) -> Tensor:
        """One position without the output's bias, (B, C) to (B, C); see `vqvae2.nn.residual`.

        Arguments:
            cache: receives the key and the value of the position.
            x: (B, C), with an offset.
            bias: (3C,) of queries, keys and values for this offset, from `folded_bias`.
            out: receives the result; None for a new tensor.
        """
        rows = F.linear(x[:, None], self.queries_keys_values.weight, bias)
        attended = cache.attend(*split_heads(rows, self.num_heads), prefix)
        return torch.addmm(x, attended.flatten(1), self.out.weight.T, out=out)

    def folded_bias(self, offset: Tensor) -> Tensor:
        """The bias of queries, keys and values, (3C,), for inputs with an offset (C,)."""
        return self.queries_keys_values(-offset)


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
