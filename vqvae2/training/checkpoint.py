"""Checkpoints: the whole state of a stage at a step, in one safetensors file.

Its metadata hold format, version, step, the figures of the best step so far, and a digest of all
tensors. Files are written whole; the last two are kept, so that a damaged one loses little.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.configuration import write_bytes
from vqvae2.weights import tensor_bytes

FORMAT, VERSION = "vqvae2-state", 1
KEPT = 2


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


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], notes: Mapping[str, float]) -> None:
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
        "version": str(VERSION),
        "step": str(step),
        "notes": json.dumps(dict(notes)),
        "digest": digest(whole),
    }
    write_bytes(path, to_bytes(whole, header))


def read_state(path: Path) -> Checkpoint:
    """Reads one state; ValueError says what is wrong with it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged ({error})") from None
    if (header.get("format"), header.get("version")) != (FORMAT, str(VERSION)):
        raise ValueError(f"{path} is not a {FORMAT} of version {VERSION}")
    if header["digest"] != digest(tensors):
        raise ValueError(f"{path} is damaged (its digest does not fit its tensors)")
    return Checkpoint(int(header["step"]), tensors, json.loads(header["notes"]))


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole state in `folder`, or None, and why newer ones were passed over."""
    problems = []
    for path in reversed(steps_in(folder)):
        try:
            return read_state(path), problems
        except ValueError as error:
            problems.append(str(error))
    return None, problems


def steps_in(folder: Path) -> list[Path]:
    """The states in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A hex digest of all names and values."""
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensor_bytes(tensors[name]))
    return total.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's state by name; its settings come from the config."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{key}": value
        for index, values in state.items()
        for key, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Gives `optimizer` the state that `optimizer_tensors` named."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "optimizer":
            index, _, key = rest.partition(".")
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
