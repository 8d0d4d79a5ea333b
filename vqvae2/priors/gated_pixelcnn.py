"""The prior of VQ-VAE-2: a gated PixelCNN with self-attention (Sec. 3.2; arXiv 1606.05328).

A vertical stack sees the rows above a position, a horizontal stack its own row to the left and,
through a link, the vertical stack. Every gate is biased by the context, label and coarser codes:

    y = tanh(a + U context) * sigmoid(b + V context)

Every few layers the horizontal stack attends to its whole past. Residual 1x1 blocks lead from the
last layer to the logits.

Legend: `B` batch, `C` channels, `G` residual channels (width of a gate), `K` codes, `H W` grid,
`N = H W`, `R` rows and `L` columns of a window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vqvae2.nn.attention import CausalAttention, KeyValueCache
from vqvae2.nn.causal import (
    HorizontalConv,
    VerticalConv,
    pointwise,
    push,
    shift_down,
    shift_raster,
)
from vqvae2.nn.residual import ResidualStack
from vqvae2.priors.conditioning import Conditioning
from vqvae2.priors.prior import Domain, Prior


@dataclass(frozen=True, kw_only=True)
class GatedPixelCNNConfig:
    """The architecture; the defaults are a small prior for small grids.

    Arguments:
        channels: C, "hidden units" of the paper.
        residual_channels: G, "residual units".
        num_layers: gated layers.
        kernel: side of the unmasked filter, odd.
        attention_every: a self-attention after every so many layers; 0 for none.
        num_heads: of each attention.
        num_output_blocks: residual 1x1 blocks before the logits.
        num_conditioning_blocks: residual blocks on the coarser codes.
        dropout: after each gate, in the stacks, and on the attention logits.
    """

    channels: int = 128
    residual_channels: int = 128
    num_layers: int = 8
    kernel: int = 5
    attention_every: int = 0
    num_heads: int = 4
    num_output_blocks: int = 2
    num_conditioning_blocks: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses filters without a centre."""
        if self.kernel % 2 == 0 or self.kernel < 1:
            raise ValueError(f"The kernel of a causal filter must be odd, got {self.kernel}.")


@dataclass
class GatedPixelCNNCache:
    """State between two steps; its tensors keep their shapes.

    Arguments:
        index: positions done; decides on the host when a row begins.
        row, column, position: of the next code, (1,) int64 on the device.
        context: (B, C, H or 1, W or 1).
        before: (B, C), the embedded code before the position; zeros at the first.
        above: (B, C, 1, W), the embedded codes of the row before, then of this row as they come.
        rows: a layer's inputs to the vertical stack, (B, C, R, W).
        columns: a layer's inputs to the horizontal stack, (B, L, C).
        biases: what a layer's horizontal gates get from the row, (B, W, 2G).
        attention: keys and values of each attention.
    """

    index: int
    row: Tensor
    column: Tensor
    position: Tensor
    context: Tensor
    before: Tensor
    above: Tensor
    rows: list[Tensor]
    columns: list[Tensor]
    biases: list[Tensor]
    attention: list[KeyValueCache]


class GatedLayer(nn.Module):
    """One layer of both stacks, with or without attention after it."""

    attention: CausalAttention | None

    def __init__(self, config: GatedPixelCNNConfig, attends: bool) -> None:
        super().__init__()
        width, gate = config.channels, config.residual_channels
        self.vertical = VerticalConv(width, 2 * gate, config.kernel)
        self.vertical_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.vertical_out = nn.Conv2d(gate, width, 1)
        self.link = nn.Conv2d(width, 2 * gate, 1)
        self.horizontal = HorizontalConv(width, 2 * gate, config.kernel)
        self.horizontal_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.horizontal_out = nn.Conv2d(gate, width, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.attention = (
            CausalAttention(width, config.num_heads, config.dropout) if attends else None
        )

    def forward(self, v: Tensor, h: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Both stacks' maps, (B, C, H, W) each, one layer on."""
        v = self._vertical(v, self.vertical(v), context)
        gates = self.horizontal(h) + self._row_bias(v, context)
        h = h + self.horizontal_out(self.dropout(gate(gates)))
        return v, h if self.attention is None else self.attention(h)

    def step_row(self, rows: Tensor, v: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The vertical stack's new row (B, C, 1, W) and the row's bias (B, W, 2G)."""
        push(rows, v, dim=2)
        v = self._vertical(v, self.vertical.step(rows), context)
        return v, self._row_bias(v, context)[:, :, 0].transpose(1, 2)

    def step_column(self, columns: Tensor, bias: Tensor, h: Tensor) -> Tensor:
        """The horizontal stack at the new position, (B, C); attention is the caller's."""
        push(columns, h[:, None], dim=1)
        gates = self.horizontal.step(columns) + bias
        return h + pointwise(self.horizontal_out, self.dropout(gate(gates)))

    def _vertical(self, v: Tensor, convolved: Tensor, context: Tensor) -> Tensor:
        gates = convolved + self.vertical_bias(context)
        return v + cast(Tensor, self.vertical_out(self.dropout(gate(gates))))

    def _row_bias(self, v: Tensor, context: Tensor) -> Tensor:
        return cast(Tensor, self.link(v) + self.horizontal_bias(context))


class GatedPixelCNN(Prior):
    """See the file's text; made for one `Domain`."""

    def __init__(self, config: GatedPixelCNNConfig, domain: Domain) -> None:
        super().__init__()
        self.config, self.domain = config, domain
        width, (height, columns) = config.channels, domain.grid
        every = config.attention_every
        self.conditioning = Conditioning(
            domain, width, config.num_conditioning_blocks, config.dropout
        )
        self.embedding = nn.Embedding(domain.num_codes, width)
        self.row_position = nn.Parameter(0.02 * torch.randn(width, height, 1))
        self.column_position = nn.Parameter(0.02 * torch.randn(width, 1, columns))
        self.layers = nn.ModuleList(
            GatedLayer(config, attends=bool(every) and layer % every == 0)
            for layer in range(1, config.num_layers + 1)
        )
        self.output = nn.Sequential(
            ResidualStack(
                width, config.residual_channels, config.num_output_blocks, 1, config.dropout
            ),
            nn.ReLU(),
            nn.Conv2d(width, domain.num_codes, 1),
        )

    def embed_context(self, labels: Tensor, coarser: Sequence[Tensor]) -> Tensor:
        """Context (B, C, H, W), or (B, C, 1, 1) on the coarsest level."""
        return cast(Tensor, self.conditioning(labels, coarser))

    def forward(self, codes: Tensor, context: Tensor) -> Tensor:
        """Logits (B, K, H, W) of whole maps (B, H, W) given context."""
        embedded = self.embedding(codes).movedim(-1, 1)
        place = self.row_position + self.column_position
        v, h = shift_down(embedded) + place, shift_raster(embedded) + place
        for layer in self.layers:
            v, h = layer(v, h, context)
        return cast(Tensor, self.output(h))

    def new_cache(self, context: Tensor, batch: int) -> GatedPixelCNNCache:
        """The state before the first position of `batch` maps."""
        config, (height, width) = self.config, self.domain.grid
        zeros = self.embedding.weight.new_zeros
        start = torch.zeros(1, dtype=torch.int64, device=self.device)
        rows, columns = (config.kernel + 1) // 2, (config.kernel + 1) // 2
        layers = range(config.num_layers)
        return GatedPixelCNNCache(
            index=0,
            row=start.clone(),
            column=start.clone(),
            position=start.clone(),
            context=context.expand(batch, -1, height, width),
            before=zeros(batch, config.channels),
            above=zeros(batch, config.channels, 1, width),
            rows=[zeros(batch, config.channels, rows, width) for _ in layers],
            columns=[zeros(batch, columns, config.channels) for _ in layers],
            biases=[zeros(batch, width, 2 * config.residual_channels) for _ in layers],
            attention=[
                layer.attention.new_cache(batch, height * width)
                for layer in self._layers()
                if layer.attention is not None
            ],
        )

    def step(self, cache: GatedPixelCNNCache, previous: Tensor) -> Tensor:
        """Logits (B, K) of the next position given the code before it, (B,)."""
        width = self.domain.grid[1]
        if cache.index:
            cache.before.copy_(self.embedding(previous))
            last = (cache.position - 1) % width
            cache.above.index_copy_(3, last, cache.before[:, :, None, None])
        if cache.index % width == 0:
            self._begin_row(cache)
        logits = self._next_column(cache)
        cache.index += 1
        cache.position += 1
        cache.row.copy_(cache.position // width)
        cache.column.copy_(cache.position % width)
        return logits

    def _begin_row(self, cache: GatedPixelCNNCache) -> None:
        """The vertical stack for a whole row, once, and with it all that its columns need."""
        place = self.row_position.index_select(1, cache.row) + self.column_position
        context = cache.context.index_select(2, cache.row)
        v = cache.above + place
        for layer, rows, bias in zip(self._layers(), cache.rows, cache.biases, strict=True):
            v, row_bias = layer.step_row(rows, v, context)
            bias.copy_(row_bias)
        for columns in cache.columns:
            columns.zero_()

    def _next_column(self, cache: GatedPixelCNNCache) -> Tensor:
        """The horizontal stack at one position; the same operations at every position."""
        place = self.row_position.index_select(1, cache.row)
        place = place + self.column_position.index_select(2, cache.column)
        h = cache.before + place[:, 0, 0]
        attention = iter(cache.attention)
        for layer, columns, biases in zip(
            self._layers(), cache.columns, cache.biases, strict=True
        ):
            bias = biases.index_select(1, cache.column)[:, 0]
            h = layer.step_column(columns, bias, h)
            if layer.attention is not None:
                h = layer.attention.step(next(attention), h, cache.position)
        return cast(Tensor, self.output(h[:, :, None, None])[:, :, 0, 0])

    def _layers(self) -> list[GatedLayer]:
        return cast(list[GatedLayer], list(self.layers))


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second (Eq. 2)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()
