"""How precisely products are computed: one policy for training, likelihoods and sampling.

    float32    float32 products
    tf32       float32 tensors; a GPU rounds the inputs of products to 10 bits after the point, in
               training those of the search for codes, too
    bfloat16   products in bfloat16; losses, norms and the search for codes in float32
    float16    the same in float16 with a loss scale, for GPUs without bfloat16 (T4, V100)
    auto       bfloat16 on a GPU that computes in it; on a CPU, training measures whether it is
               faster (`vqvae2.training.precision_choice`); otherwise float32

Weights, their averages and codebooks are float32 in all of them. Encoding and decoding images are
always in float32, so that codes do not depend on the precision. float16 applies to training and
likelihoods on a GPU; samples are computed in float32, and so is everything on a CPU.

"auto" never means float16: its range is narrow, so a model may overflow that trains in float32.
It never means bfloat16 where a GPU only emulates it.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Literal, TypeVar, cast, get_args
from weakref import WeakKeyDictionary

import torch
from torch import nn

from vqvae2.messages import require_choice

Precision = Literal["auto", "float32", "tf32", "bfloat16", "float16"]
FixedPrecision = Literal["float32", "tf32", "bfloat16", "float16"]

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}

M = TypeVar("M", bound=nn.Module)


def resolve(precision: Precision, device: torch.device) -> FixedPrecision:
    """What a precision means on a device, outside of training."""
    require_choice("precision", precision, get_args(Precision))
    if precision == "float16" and device.type != "cuda":
        return "float32"
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" and has_bfloat16(device) else "float32"


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16: a GPU itself, a CPU in its library, fast or not."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    library = device.type == "cpu" and torch.backends.mkldnn.is_available()
    return bool(library and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def set_products(precision: Precision, device: torch.device) -> None:
    """Sets how a GPU computes float32 products: matrix products and convolutions.

    Autocast leaves no matrix products in float32 but those that must be exact, such as the search
    for codes, so only tf32 rounds these.
    """
    if device.type == "cuda":
        resolved = resolve(precision, device)
        torch.set_float32_matmul_precision("high" if resolved == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = resolved != "float32"


@contextlib.contextmanager
def computing(precision: Precision, device: torch.device) -> Iterator[None]:
    """Computes in a precision within the context: its float32 products, and autocast."""
    with float32_products(precision, device), autocast(resolve(precision, device), device):
        yield


def autocast(precision: FixedPrecision, device: torch.device) -> torch.autocast:
    """torch's autocast of a precision; disabled for float32 and tf32."""
    dtype = AUTOCAST.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextlib.contextmanager
def float32_products(precision: Precision, device: torch.device) -> Iterator[None]:
    """`set_products` within the context."""
    if device.type != "cuda":
        yield
        return
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


def at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor in float32, in which losses are computed; one of float64 as it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def exactly(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Float32 products within the context, for codes of images that depend on no precision."""
    return float32_products("float32", device)


COPIES: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()


def bfloat16_copy(module: M) -> M:
    """`in_bfloat16`, the same copy at every call while the module lives, with its current weights.

    A CUDA graph that was recorded for the copy is used again by the next call.
    """
    copied = COPIES.get(module)
    weights = module.state_dict()
    if copied is None or next(copied.parameters()).device != next(module.parameters()).device:
        copied = COPIES[module] = in_bfloat16(module)
    for name, value in copied.state_dict().items():
        value.copy_(weights[name])
    return cast(M, copied)


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
