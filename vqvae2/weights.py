"""Weights on disk, in the hub's layout: a folder with `config.json` and `model.safetensors`."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from vqvae2.configuration import to_dict
from vqvae2.files import read_json, write_bytes, write_json

VERSION = 2
"""Of the models' files: the names of weights, and what configs say."""

MOST_LAYERS = 1000

M = TypeVar("M", bound=nn.Module)


def fingerprint(module: nn.Module) -> str:
    """A short hex digest of all weights and buffers: equal weights, equal digest."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor of any dtype, in row-major order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def save_module(folder: Path, name: str, config: Mapping[str, Any], module: nn.Module) -> None:
    """Writes weights, then the config that makes them valid, into `folder`."""
    from safetensors.torch import save

    tensors = {key: value.contiguous() for key, value in module.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(tensors, {"format": "pt"}))
    write_json(folder / "config.json", name, VERSION, config)


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The config that `save_module` wrote."""
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no {name}: {path.name} is missing.")
    return read_json(path, name, VERSION)


def load_module(folder: Path, build: Callable[[], M], config: Any) -> M:
    """The model that `build` makes of `config`, with the folder's weights, in eval mode.

    Nothing of the model's size is made before its weights are known to fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    sketch, path = sketch_of(build, config, str(folder)), folder / "model.safetensors"
    try:
        tensors = load_file(path)
        sketch.load_state_dict(tensors, assign=True)
        module = build()
        module.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} does not hold this model's weights: {reason}") from None
    # The hub's own loaders have returned models in train mode; ours never does.
    return module.eval()


def sketch_of(build: Callable[[], M], config: Any, where: str) -> M:
    """The model that `build` makes of `config`, without memory behind its tensors.

    Raises ValueError where the config describes no model; files of strangers have configs too.
    """
    require_numbers(to_dict(config), where)
    try:
        with torch.device("meta"):
            return build()
    except ValueError:
        raise
    except Exception as error:  # whatever a layer says to numbers that it cannot have
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{where} describes no model: {reason}.") from None


def require_numbers(config: Any, where: str) -> None:
    """Raises ValueError for more layers than a model has, or numbers beyond 31 bits."""
    named = config.items() if isinstance(config, dict) else enumerate(config)
    for name, value in named:
        if isinstance(value, dict | list):
            require_numbers(value, f"{where}.{name}")
        counts = str(name).endswith(("layers", "blocks", "scales"))
        most = MOST_LAYERS if counts else 2**31
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{where}.{name} must be at most {most}, got {str(value)[:20]}.")
