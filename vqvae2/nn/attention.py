"""Causal multi-head self-attention over a map in raster order (arXiv 1706.03762, Sec. 3.2).

A position attends to itself and all positions before it. Whoever needs strict causality shifts the
input, as the priors do. Two modes compute the same: `forward` on maps, `step` on one position with
the keys and values of the past.

Legend: `B` batch, `C` channels, `H W` grid, `N = H W` positions, `heads` x `size` = C.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class KeyValueCache:
    """Keys and values of all positions, (B, heads, N, size) each; those to come are unused."""

    keys: Tensor
    values: Tensor


class CausalAttention(nn.Module):
    """Self-attention with a residual connection: x + out(attend(x)).

    Arguments:
        channels: C.
        num_heads: heads; must divide C.
        dropout: probability of zeroing an attention logit in training (VQ-VAE-2, Sec. 3.2). Zero
            means "no opinion", not "not seen": softmax still gives that position a share.
    """

    def __init__(self, channels: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(
                f"Heads must divide the channels, got {channels} channels and {num_heads} heads; "
                f"use {channels // num_heads * num_heads} channels."
            )
        self.num_heads, self.dropout = num_heads, dropout
        self.queries_keys_values = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        rows = x.flatten(2).transpose(1, 2)
        queries, keys, values = self._heads(rows)
        if self.training and self.dropout:
            attended = self._attend_with_dropout(queries, keys, values)
        else:
            attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        mixed = self.out(attended.transpose(1, 2).flatten(2))
        out: Tensor = x + mixed.transpose(1, 2).unflatten(2, x.shape[2:])
        return out

    def new_cache(self, batch: int, num_positions: int) -> KeyValueCache:
        """An empty cache for maps of N positions, in the weights' dtype and on their device."""
        weight = self.out.weight
        shape = (batch, self.num_heads, num_positions, weight.shape[0] // self.num_heads)
        return KeyValueCache(weight.new_zeros(shape), weight.new_zeros(shape))

    def step(self, cache: KeyValueCache, x: Tensor, position: Tensor) -> Tensor:
        """One position: x (B, C) to (B, C); writes its key and value at `position`, (1,) int64."""
        query, key, value = self._heads(x[:, None])
        cache.keys.index_copy_(2, position, key)
        cache.values.index_copy_(2, position, value)
        seen = torch.arange(cache.keys.shape[2], device=x.device) <= position
        attended = F.scaled_dot_product_attention(
            query, cache.keys, cache.values, attn_mask=seen[None, None, None]
        )
        out: Tensor = x + self.out(attended.flatten(1))
        return out

    def _heads(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, heads, N, size) each, of rows (B, N, C)."""
        split = self.queries_keys_values(rows).unflatten(2, (3, self.num_heads, -1))
        queries, keys, values = split.permute(2, 0, 3, 1, 4).unbind(0)
        return queries, keys, values

    def _attend_with_dropout(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attention whose logits are dropped: they must exist for that, N x N of them."""
        logits = queries @ keys.transpose(2, 3) / queries.shape[3] ** 0.5
        future = logits.new_ones(logits.shape[2:], dtype=torch.bool).triu(1)
        logits = F.dropout(logits, self.dropout).masked_fill(future, float("-inf"))
        return logits.softmax(dim=3) @ values
