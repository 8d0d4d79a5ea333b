"""Residual stacks, down-sampling and up-sampling (Sec. 4.1 of VQ-VAE, arXiv 1711.00937).

While sampling, a residual branch is one product that adds to its input. The bias of the branch is
added beforehand: the input of every branch carries an offset, the sum of the biases of this and
all later branches, and the last output carries none. An affine layer A that reads x + offset
without its bias gives A(x) once A(-offset) is added, its folded bias.

Legend: `B` batch, `C` channels, `M` hidden channels, `H W` grid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqvae2.nn.causal import bias_of, matrix, pointwise
from vqvae2.nn.modules import Modules
from vqvae2.nn.recompute import Block


def log2_exact(factor: int) -> int:
    """The binary logarithm of a power of two.

    Raises:
        ValueError: `factor` is not a power of two.
    """
    exponent = factor.bit_length() - 1
    if factor < 1 or factor != 1 << exponent:
        raise ValueError(
            f"A sampling factor must be a power of two (1, 2, 4, ...), got {factor}; "
            "split other factors over levels or resize the images."
        )
    return exponent


class ResidualBlock(Block):
    """x + conv1x1(relu(conv KxK(relu(x)))).

    Arguments:
        channels: C of input and output.
        hidden: channels between the two convolutions.
        kernel: side K of the first convolution; with 1 the block is local to a position.
        dropout: probability of zeroing a hidden channel.
    """

    def __init__(self, channels: int, hidden: int, kernel: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        self.widen = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)
        self.narrow = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        return x + self.narrow(self.dropout(F.relu(self.widen(F.relu(x)))))


@dataclass
class StackBiases:
    """Offsets and folded biases of a `ResidualStack` while sampling.

    Arguments:
        offsets: of the blocks' inputs, (blocks, C).
        hidden: folded biases of the hidden channels, (blocks, M).
    """

    offsets: Tensor
    hidden: Tensor


class ResidualStack(nn.Sequential):
    """`num_blocks` residual blocks in sequence: (B, C, H, W) to the same shape."""

    def __init__(
        self, channels: int, hidden: int, num_blocks: int, kernel: int = 3, dropout: float = 0.0
    ) -> None:
        blocks = (ResidualBlock(channels, hidden, kernel, dropout) for _ in range(num_blocks))
        super().__init__(*blocks)
        self.widths = channels, hidden

    @property
    def blocks(self) -> list[ResidualBlock]:
        """The blocks in order."""
        return [block for block in self if isinstance(block, ResidualBlock)]

    def new_biases(self, like: Tensor) -> StackBiases:
        """Zeros for `fold`, with the device and dtype of a tensor."""
        offsets, hidden = (like.new_zeros(len(self), width) for width in self.widths)
        return StackBiases(offsets, hidden)

    def fold(self, biases: StackBiases) -> Tensor:
        """Computes the offsets and biases in place; returns the offset of the input, (C,)."""
        offset = biases.offsets.new_zeros(self.widths[0])
        for number, block in reversed([*enumerate(self.blocks)]):
            offset = offset + bias_of(block.narrow)
            biases.offsets[number].copy_(offset)
            biases.hidden[number].copy_(pointwise(block.widen, -offset))
        return offset


class StackStep:
    """A `ResidualStack` with kernel 1 at one position, without dropout.

    It holds views of the weights, made once instead of at every position.

    Arguments:
        stack: the stack.
        biases: offsets and folded biases, from `new_biases`.
    """

    def __init__(self, stack: ResidualStack, biases: StackBiases) -> None:
        weights = (
            (matrix(block.widen).detach().T, matrix(block.narrow).detach().T)
            for block in stack.blocks
        )
        self.blocks = [*zip(weights, biases.offsets, biases.hidden, strict=True)]

    def __call__(self, x: Tensor) -> Tensor:
        """Maps (B, C) with the offset of the input to (B, C) without one."""
        for (widen, narrow), offset, bias in self.blocks:
            # relu(x) = max(x + offset, offset) - offset, and the bias contains the last term.
            hidden = addmm_relu(bias, torch.maximum(x, offset), widen)
            x = torch.addmm(x, hidden, narrow)
        return x


def addmm_relu(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """relu(bias + x weight), (B, M), in one operation where the device has it."""
    if x.device.type in ("cpu", "cuda"):
        return torch._addmm_activation(bias, x, weight)
    return torch.addmm(bias, x, weight).relu_()


class Downsample(Block, nn.Sequential):
    """Strided 4x4 convolutions, one per halving, then a 3x3 convolution.

    The first convolution has half of the channels when there is more than one.

    Arguments:
        in_channels: C of the input.
        channels: C of the output.
        factor: divides each side, a power of two.
    """

    def __init__(self, in_channels: int, channels: int, factor: int) -> None:
        halvings = log2_exact(factor)
        widths = [in_channels, *[channels // 2] * (halvings > 1), *[channels] * halvings]
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths[: halvings + 1]):
            layers += [nn.Conv2d(width, next_width, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers, nn.Conv2d(widths[halvings], channels, 3, padding=1))


class Upsample(Block, nn.Sequential):
    """Strided 4x4 transposed convolutions, one per doubling.

    The last but one has half of the channels.

    Arguments:
        channels: C of the input.
        out_channels: C of the output.
        factor: multiplies each side, a power of two; with 1 this is a 1x1 convolution.
    """

    def __init__(self, channels: int, out_channels: int, factor: int) -> None:
        doublings = log2_exact(factor)
        if doublings == 0:
            super().__init__(nn.Conv2d(channels, out_channels, 1))
            return
        widths = [channels] * doublings + [out_channels]
        if doublings > 1:
            widths[-2] = channels // 2
        layers: list[nn.Module] = []
        for width, next_width in pairwise(widths):
            layers += [nn.ConvTranspose2d(width, next_width, 4, stride=2, padding=1), nn.ReLU()]
        super().__init__(*layers[:-1])


class Projection(Block, nn.Conv2d):
    """A 1x1 convolution of maps that are concatenated.

    As a block it stores the maps for the gradient, which exist anyway, not their concatenation.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """(B, C, H, W) each, `in_channels` together, to (B, out_channels, H, W)."""
        return super().forward(torch.cat(maps, dim=1))


class Encoder(nn.Sequential):
    """Down-sampling, a residual stack, then a ReLU."""

    def __init__(
        self, in_channels: int, channels: int, residual_channels: int, num_blocks: int, factor: int
    ) -> None:
        super().__init__(
            Downsample(in_channels, channels, factor),
            ResidualStack(channels, residual_channels, num_blocks),
            nn.ReLU(),
        )


class Decoder(nn.Sequential):
    """A 3x3 convolution, a residual stack, a ReLU, then up-sampling."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int,
        residual_channels: int,
        num_blocks: int,
        factor: int,
    ) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1),
            ResidualStack(channels, residual_channels, num_blocks),
            nn.ReLU(),
            Upsample(channels, out_channels, factor),
        )


def merge(upsamplers: Modules[Upsample], vectors: Sequence[Tensor]) -> Tensor:
    """The vectors (B, D, H, W) of all levels, concatenated on the grid of the finest.

    Arguments:
        upsamplers: one per level after the first; each up-samples what is merged so far.
        vectors: one per level, coarsest first.
    """
    merged = vectors[0]
    for level, x in enumerate(vectors[1:]):
        merged = torch.cat([upsamplers[level](merged), x], dim=1)
    return merged
