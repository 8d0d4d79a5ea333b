"""Gradients through quantisation, which is piecewise constant and has none of its own.

Legend: `B` batch, `D` code size, `H W` grid.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

VECTORS_PER_CHUNK = {"cpu": 1 << 14, "cuda": 1 << 20}
"""Vectors that are processed at a time, by device, where intermediate results need memory."""


class StraightThrough(torch.autograd.Function):
    """Returns its second argument; the gradient goes to the first. No arithmetic at all."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, vectors: Tensor) -> Tensor:
        """The values of `vectors`."""
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient of the result becomes that of `x`."""
        return gradients[0], None


class SquaredDistance(torch.autograd.Function):
    """Mean squared difference of two tensors, without a tensor of differences."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, constant: Tensor) -> Tensor:
        """A scalar, accumulated over chunks of images."""
        ctx.save_for_backward(x, constant)
        total = x.new_zeros((), dtype=torch.promote_types(x.dtype, torch.float32))
        for part, other in zip(image_chunks(x), image_chunks(constant), strict=True):
            total = total + F.mse_loss(part.to(total), other.to(total), reduction="sum")
        return total / x.numel()

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        """2 (x - constant) / n."""
        x, constant = ctx.saved_tensors  # type: ignore[attr-defined]
        return ((x - constant) * (2 / x.numel() * gradients[0])).to(x), None


def squared_distance(x: Tensor, constant: Tensor) -> Tensor:
    """Mean squared difference of two (B, D, H, W), whose gradient reaches `x` only."""
    with torch.autocast(x.device.type, enabled=False):
        return SquaredDistance.apply(x, constant)  # type: ignore[no-untyped-call]


def pass_gradient(x: Tensor, vectors: Tensor, gradient: Literal["straight", "rotate"]) -> Tensor:
    """The values of `vectors`, with a gradient to `x`; both (B, D, H, W).

    "straight" copies the gradient (VQ-VAE, Sec. 3.2). "rotate" is x R |e|/|x| with R the rotation
    that takes the direction of x to that of e, held constant (arXiv 2410.06424, Eq. 4 and 5).
    """
    if gradient == "straight":
        return StraightThrough.apply(x, vectors)  # type: ignore[no-untyped-call]
    x_norm = x.detach().norm(dim=1, keepdim=True).clamp_min(1e-6)
    norm = vectors.norm(dim=1, keepdim=True).clamp_min(1e-6)
    x_unit, unit = x.detach() / x_norm, vectors / norm
    middle = F.normalize(x_unit + unit, dim=1)
    reflected = x - 2 * (x * middle).sum(dim=1, keepdim=True) * middle
    rotated = reflected + 2 * (x * x_unit).sum(dim=1, keepdim=True) * unit
    scaled = rotated * (norm / x_norm)
    return vectors + (scaled - scaled.detach())


def image_chunks(x: Tensor) -> tuple[Tensor, ...]:
    """(B, ..., H, W) split along B into chunks of about `VECTORS_PER_CHUNK` positions."""
    num_positions = x.shape[-1] * x.shape[-2]
    num_vectors = VECTORS_PER_CHUNK.get(x.device.type, VECTORS_PER_CHUNK["cpu"])
    return tuple(x.split(max(1, num_vectors // num_positions)))
