"""A layer of the gated PixelCNN: two stacks of gated causal convolutions (arXiv 1606.05328).

The vertical stack covers the rows above a position. The horizontal stack covers its own row to the
left and receives the vertical stack through a 1x1 convolution (`link`). Every gate is biased by
the context:

    y = tanh(a + U context) * sigmoid(b + V context)                                      (Eq. 2)

While sampling, both stacks carry offsets and the gates have folded biases, see
`vqvae2.nn.residual`.

Legend: `B` batch, `C` channels, `G` gate channels, `H W` grid, `R` rows and `L` columns of a
window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.attention import CausalAttention
from vqvae2.nn.causal import HorizontalConv, VerticalConv, matrix, pointwise
from vqvae2.nn.recompute import Block


class GatedLayer(Block):
    """One layer of both stacks, with or without self-attention after it.

    Arguments:
        channels: C.
        gate_channels: G.
        kernel: side of the unmasked filter, odd.
        dropout: after each gate and on the attention logits.
        num_heads: heads of the attention after the layer; 0 for none.
    """

    attention: CausalAttention | None

    def __init__(
        self, channels: int, gate_channels: int, kernel: int, dropout: float, num_heads: int
    ) -> None:
        super().__init__()
        width, gate, size = channels, gate_channels, (kernel + 1) // 2
        self.vertical = VerticalConv(width, 2 * gate, size, kernel)
        self.vertical_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.vertical_out = nn.Conv2d(gate, width, 1)
        self.link = nn.Conv2d(width, 2 * gate, 1)
        self.horizontal = HorizontalConv(width, 2 * gate, size)
        self.horizontal_bias = nn.Conv2d(width, 2 * gate, 1, bias=False)
        self.horizontal_out = nn.Conv2d(gate, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.attention = CausalAttention(width, num_heads, dropout) if num_heads else None

    def forward(self, v: Tensor, h: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Maps the vertical and the horizontal stack, (B, C, H, W) each, to the same shapes."""
        v = self._vertical(v, self.vertical(v), context)
        gates = self.horizontal(h) + self._row_bias(v, context)
        h = h + self.horizontal_out(self.dropout(gate(gates)))
        return v, h if self.attention is None else self.attention(h)

    def vertical_gates(self, rows: Tensor, bias: Tensor, context: Tensor | None) -> Tensor:
        """The vertical gates (B, 2G, W) of the newest row, before the activations.

        Arguments:
            rows: window (B, C, R, W + kernel - 1) of the input, the new row included.
            bias: (2G,), or (B, 2G) where it includes the context.
            context: of the row, (B, C, W); None if the bias includes it.
        """
        weight = self.vertical.conv.weight
        if context is None:
            return F.conv2d(rows, weight)[:, :, 0].add_(bias[:, :, None])
        gates = F.conv2d(rows, weight, bias)[:, :, 0]
        return add_projection(gates, self.vertical_bias, context, gates)

    def row_bias(self, v: Tensor, bias: Tensor, context: Tensor | None, out: Tensor) -> None:
        """Computes what a row adds to the horizontal gates, (B, W, 2G).

        Arguments:
            v: output of the vertical stack, (B, C, W), with its offset.
            bias, context: as of `vertical_gates`.
            out: receives the result.
        """
        gates, bias = out.transpose(1, 2), bias[..., None]
        if context is None:
            add_projection(bias, self.link, v, gates)
        else:
            add_projection(bias, self.horizontal_bias, context, gates)
            add_projection(gates, self.link, v, gates)

    def step_row(self, v: Tensor, gates: Tensor, out: Tensor | None) -> Tensor:
        """One row of the vertical stack.

        Arguments:
            v: input (B, C, W) with its offset.
            gates: (B, 2G, W) before the activations, overwritten.
            out: receives the result; None for a new tensor.

        Returns:
            The output (B, C, W) with its offset.
        """
        return add_projection(v, self.vertical_out, gate_in_place(gates), out)

    def fold(self, v: Tensor, h: Tensor, link: Tensor) -> tuple[Tensor, Tensor]:
        """Folded biases of the vertical and the horizontal gates, (2G,) each.

        Arguments:
            v, h: offsets of the inputs, (C,) each.
            link: offset of the vertical stack's output, which the link reads, (C,).
        """
        window = (-v)[None, :, None, None].expand(-1, -1, *self.vertical.conv.kernel_size)
        columns = (-h).expand(1, self.horizontal.columns, -1)
        horizontal = self.horizontal.step(columns)[0] + pointwise(self.link, -link)
        return self.vertical.conv(window)[0, :, 0, 0], horizontal

    def _vertical(self, v: Tensor, convolved: Tensor, context: Tensor) -> Tensor:
        gates = convolved + self.vertical_bias(context)
        return v + self.vertical_out(self.dropout(gate(gates)))

    def _row_bias(self, v: Tensor, context: Tensor) -> Tensor:
        return self.link(v) + self.horizontal_bias(context)


class ColumnStep:
    """One position of a layer's horizontal stack, without the attention.

    It holds views of the weights and of the window, made once instead of at every position, where
    making them takes as long as a small product.

    Arguments:
        layer: the layer.
        columns: window (B, L, C) of the input, whose newest column is the position.
        out: receives the output; None for a new tensor.
    """

    def __init__(self, layer: GatedLayer, columns: Tensor, out: Tensor | None) -> None:
        self.window, self.out = columns.flatten(1), out
        self.weight = layer.horizontal.weight.detach().flatten(0, 1)
        self.out_weight = matrix(layer.horizontal_out).detach().T

    def __call__(self, h: Tensor, row_bias: Tensor) -> Tensor:
        """The output (B, C) with its offset.

        Arguments:
            h: newest column of the window, (B, C), with its offset.
            row_bias: (B, 2G), overwritten.
        """
        gates = gate_in_place(row_bias.addmm_(self.window, self.weight))
        return torch.addmm(h, gates, self.out_weight, out=self.out)


def add_projection(x: Tensor, conv: nn.Conv2d, row: Tensor, out: Tensor | None) -> Tensor:
    """x plus a 1x1 convolution, without its bias, of a row (B, C, W): (B, O, W).

    Arguments:
        out: receives the result, may be x; None for a new tensor.
    """
    if row.is_cuda:  # in one operation
        return torch.baddbmm(x, matrix(conv).expand(len(row), -1, -1), row, out=out)
    # Convolutions are twice as fast as batched products on many CPUs.
    return torch.add(x, F.conv1d(row, conv.weight[..., 0]), out=out)


def gate(x: Tensor) -> Tensor:
    """tanh of the first half of the channels times sigmoid of the second (Eq. 2)."""
    a, b = x.chunk(2, dim=1)
    return a.tanh() * b.sigmoid()


def gate_in_place(x: Tensor) -> Tensor:
    """`gate` with few operations; overwrites its input."""
    a, b = x.chunk(2, dim=1)
    if x.is_cuda or x.dtype == torch.bfloat16:
        a.tanh_()
        return F.glu(x, dim=1)
    # On a CPU tanh takes six times as long as the logistic function:
    # tanh(a) = 1 - 2 sigmoid(-2a). In bfloat16 the difference would lose small values.
    a.mul_(-2)
    x.sigmoid_()
    return torch.addcmul(b, a, b, value=-2, out=a)
