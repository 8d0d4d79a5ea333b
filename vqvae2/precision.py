"""How precisely products are computed: one policy for training, likelihoods and sampling.

    float32    float32 products
    tf32       float32 tensors; a GPU rounds the inputs of products to 10 bits after the point
    bfloat16   products in bfloat16; losses, norms and the search for codes in float32
    auto       bfloat16 on a GPU that computes in it, otherwise float32

Weights, their averages and codebooks are float32 in all of them. Encoding and decoding images are
not in bfloat16, so that codes do not depend on it.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["auto", "float32", "tf32", "bfloat16"]

M = TypeVar("M", bound=nn.Module)


def resolve(precision: Precision, device: torch.device) -> Precision:
    """The precision that "auto" means on a device; other precisions mean themselves."""
    if precision != "auto":
        return precision
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if on_gpu else "float32"


def set_products(precision: Precision, device: torch.device) -> None:
    """Sets how a GPU computes float32 products: matrix products and convolutions alike."""
    if device.type == "cuda":
        rounded = resolve(precision, device) != "float32"
        torch.set_float32_matmul_precision("high" if rounded else "highest")
        torch.backends.cudnn.allow_tf32 = rounded


@contextlib.contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Computes in a precision within the context: its products, and autocast for bfloat16."""
    enabled = resolve(precision, device) == "bfloat16"
    with (
        float32_products(precision, device),
        torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled),
    ):
        yield


@contextlib.contextmanager
def float32_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """`set_products` within the context."""
    matrices = torch.get_float32_matmul_precision()
    convolutions = torch.backends.cudnn.allow_tf32
    set_products(precision, device)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matrices)
        torch.backends.cudnn.allow_tf32 = convolutions


def without_autocast(tensor: torch.Tensor) -> contextlib.AbstractContextManager[None]:
    """Disables autocast on the device of a tensor, if the device has it."""
    device = tensor.device.type
    if not torch.amp.is_autocast_available(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float64, for sums over many images; in float32 on a device without float64."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


def in_bfloat16(module: M) -> M:
    """A copy with bfloat16 weights, half as many bytes to read per sampled position.

    Modules with the attribute `needs_float32` keep their weights.
    """
    converted = copy.deepcopy(module).to(torch.bfloat16)
    for name, part in module.named_modules():
        if getattr(part, "needs_float32", False):
            exact = converted.get_submodule(name).to(torch.float32)
            exact.load_state_dict(part.state_dict())
    return converted
