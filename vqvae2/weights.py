"""Weights on disk, in the hub's layout: a folder with `config.json` and `model.safetensors`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqvae2.configuration import read_json, write_bytes, write_json

VERSION = 2
"""Of the models' files: the names of weights, and what configs say."""


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


def load_weights(folder: Path, module: nn.Module) -> None:
    """Fills `module`, all of it and nothing else, and puts it into eval mode."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    try:
        tensors = load_file(path)
        module.load_state_dict(tensors)
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{path} does not hold this model's weights: {reason}") from None
    # The hub's own loaders have returned models in train mode; ours never does.
    module.eval()
