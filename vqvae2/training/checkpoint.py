"""Checkpoints: the whole state of a stage at a step, in one safetensors file.

Its metadata key `vqvae2` holds JSON: format, version, step, the figure of the best step so far,
and a digest of all that and of all tensors. Files are written whole; the last two are kept, so
that a damaged one loses little.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor

from vqvae2.files import write_bytes
from vqvae2.weights import tensor_bytes

FORMAT, VERSION = "vqvae2-state", 2
KEPT = 2


class DamagedFile(ValueError):
    """A file that was whole once and is not any more."""


@dataclass(frozen=True)
class Checkpoint:
    """A state read back.

    Arguments:
        step: steps done.
        tensors: by name.
        notes: numbers saved beside them.
    """

    step: int
    tensors: dict[str, Tensor]
    notes: dict[str, float]


def save(
    folder: Path, step: int, tensors: Mapping[str, Tensor], notes: Mapping[str, float]
) -> None:
    """Writes `folder`/step-N.safetensors and removes all but the last `KEPT`."""
    write_state(folder / f"step-{step:08d}.safetensors", step, tensors, notes)
    for old in steps_in(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def write_state(
    path: Path, step: int, tensors: Mapping[str, Tensor], notes: Mapping[str, float]
) -> None:
    """Writes one state under any name."""
    from safetensors.torch import save as to_bytes

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "step": step,
        "notes": dict(notes),
    }
    header["digest"] = digest(whole, header)
    # One key: safetensors writes several in any order, and equal states must be equal files.
    write_bytes(path, to_bytes(whole, {"vqvae2": json.dumps(header)}))


def read_state(path: Path) -> Checkpoint:
    """Reads one state.

    Raises:
        Damaged: the file is cut or changed.
        ValueError: it is a state of another version.
        OSError: it cannot be read now, which says nothing about it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("vqvae2", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError) as error:
        raise DamagedFile(f"{path} is damaged ({error})") from None
    if not isinstance(header, dict):
        raise DamagedFile(f"{path} is damaged (its header is {header!r:.40})")
    if (header.get("format"), header.get("version")) != (FORMAT, VERSION):
        found = f"{header.get('format')} version {header.get('version')}"
        raise ValueError(f"{path} must be {FORMAT} version {VERSION}, got {found}.")
    if header.pop("digest", "") != digest(tensors, header):
        raise DamagedFile(f"{path} is damaged (its digest does not fit what it holds)")
    return Checkpoint(header["step"], tensors, header["notes"])


def latest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest whole state in `folder`, or None, and why newer files were passed over."""
    damaged: dict[Path, str] = {}
    for path in reversed(steps_in(folder)):
        try:
            return read_state(path), damaged
        except DamagedFile as error:
            damaged[path] = str(error)
    return None, damaged


def steps_in(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def digest(tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> str:
    """A hex digest of all names and values, and of what the file says of itself."""
    total = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensor_bytes(tensors[name]))
    return total.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by name; its settings come from the config.

    Where ranks keep a part each, the first has it all; every rank calls this.
    """
    if not isinstance(optimizer, torch.optim.Adam):
        cast(Any, optimizer).consolidate_state_dict(to=0)  # a ZeroRedundancyOptimizer
        if dist.get_rank():
            return {}
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives `optimizer` the state that `optimizer_tensors` named."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = like(tensor, parameters[int(index)])
    groups, first = [], 0
    for group in optimizer.param_groups:
        numbers = list(range(first, first + len(group["params"])))
        groups.append({**group, "params": numbers})
        first += len(numbers)
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` in the memory layout of its parameter: fused optimizers pair them by address."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
