"""Checkpoints: the training state of a stage at a step, in one safetensors file.

The metadata key `vqvae2` holds JSON: format, version, step, notes (the best metric so far), and a
digest of all that and of all tensors. Files are written atomically; the last two are kept, so that
a damaged one loses little. Tensors are named `model.PHASE.NAME`, `average.PHASE.NAME`,
`optimizer.PHASE.INDEX.KEY` and, in float16, `scale.PHASE.NAME`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vqvae2.configuration import JsonObject
from vqvae2.distributed import World
from vqvae2.files import write_bytes
from vqvae2.training.loop import TrainingState
from vqvae2.weights import tensor_bytes

FORMAT, VERSION = "vqvae2-state", 3
NUM_KEPT = 2


class DamagedFile(ValueError):
    """A file that was cut or changed after it was written."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file.

    Arguments:
        step: completed steps.
        tensors: by name.
        notes: numbers saved with them.
    """

    step: int
    tensors: dict[str, Tensor]
    notes: dict[str, float]

    def with_prefix(self, *prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with a prefix, named without it."""
        start = "".join(f"{name}." for name in prefix)
        names = [name for name in self.tensors if name.startswith(start)]
        return {name.removeprefix(start): self.tensors[name] for name in names}


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], notes: dict[str, float]) -> None:
    """Writes `folder`/step-N.safetensors and removes all but the last `NUM_KEPT`."""
    write_checkpoint(folder / f"step-{step:08d}.safetensors", Checkpoint(step, {**tensors}, notes))
    for old in saved_steps(folder)[:-NUM_KEPT]:
        old.unlink(missing_ok=True)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes one file under any name."""
    from safetensors.torch import save as to_bytes

    pairs = checkpoint.tensors.items()
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in pairs}
    header: JsonObject = {
        "format": FORMAT,
        "version": VERSION,
        "step": checkpoint.step,
        "notes": dict(checkpoint.notes),
    }
    header["digest"] = digest(tensors, header)
    # One key: safetensors writes several in any order, and equal states must be equal files.
    write_bytes(path, to_bytes(tensors, {"vqvae2": json.dumps(header)}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Reads one file.

    Raises:
        DamagedFile: the file was cut or changed.
        ValueError: it is of another version.
        OSError: it cannot be read now, which says nothing about its content.
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
        version = f"{header.get('format')} version {header.get('version')}"
        raise ValueError(
            f"{path} must be {FORMAT} version {VERSION}, got {version}; finish this training with "
            "the version that began it, or train in another run folder."
        )
    if header.pop("digest", "") != digest(tensors, header):
        raise DamagedFile(f"{path} is damaged (its digest does not fit its content)")
    return Checkpoint(header["step"], tensors, header["notes"])


def latest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """The newest undamaged checkpoint in `folder`, or None, and why newer files are unusable."""
    damaged: dict[Path, str] = {}
    for path in reversed(saved_steps(folder)):
        try:
            return read_checkpoint(path), damaged
        except DamagedFile as error:
            damaged[path] = str(error)
    return None, damaged


def saved_steps(folder: Path) -> list[Path]:
    """The checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def digest(tensors: Mapping[str, Tensor], header: JsonObject) -> str:
    """A hex digest of the header and of the names and values of all tensors."""
    total = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        total.update(name.encode())
        total.update(tensor_bytes(tensors[name]))
    return total.hexdigest()


def state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """All tensors of a training state by name; every process calls this."""
    tensors: dict[str, Tensor] = {}
    for name, phase in state.phases.items():
        tensors |= {f"model.{name}.{key}": v for key, v in phase.module.state_dict().items()}
        tensors |= {
            f"optimizer.{name}.{key}": value
            for key, value in optimizer_tensors(phase.optimizers).items()
        }
        if phase.scale is not None:
            tensors |= {f"scale.{name}.{key}": v for key, v in phase.scale.tensors().items()}
    return tensors | average_tensors(state)


def average_tensors(state: TrainingState) -> dict[str, Tensor]:
    """The averaged weights by name."""
    return {
        f"average.{name}.{key}": value
        for name, module in state.averages().items()
        for key, value in module.state_dict().items()
    }


def load_state(state: TrainingState, saved: Checkpoint) -> None:
    """Replaces a training state by a saved one."""
    for name, phase in state.phases.items():
        phase.module.load_state_dict(saved.with_prefix("model", name))
        if phase.average is not None:
            phase.average.load_state_dict(saved.with_prefix("average", name))
        load_optimizers(phase.optimizers, saved.with_prefix("optimizer", name))
        if phase.scale is not None:
            phase.scale.load(saved.with_prefix("scale", name))
    state.step, state.notes = saved.step, dict(saved.notes)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The state of a phase's optimizers by name, `INDEX.KEY`; settings come from the config.

    INDEX counts the parameters of all of them. Where processes keep a part each, the main process
    has it all; every process calls this.
    """
    tensors: dict[str, Tensor] = {}
    first = 0
    for optimizer in optimizers:
        if hasattr(optimizer, "consolidate_state_dict"):
            optimizer.consolidate_state_dict(to=0)
            if not World.current().is_main:
                return {}
        state = optimizer.state_dict()["state"]
        for index, values in state.items():
            tensors |= {f"{first + index}.{key}": value for key, value in values.items()}
        first += num_parameters(optimizer)
    return tensors


def load_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Mapping[str, Tensor]
) -> None:
    """Gives optimizers the state that `optimizer_tensors` named."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    first = 0
    for optimizer in optimizers:
        count = num_parameters(optimizer)
        load_optimizer(
            optimizer, {i: state[first + i] for i in range(count) if first + i in state}
        )
        first += count


def load_optimizer(
    optimizer: torch.optim.Optimizer, state: Mapping[int, Mapping[str, Tensor]]
) -> None:
    """Gives `optimizer` a state by the number of the parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    laid_out = {
        index: {key: laid_out_like(tensor, parameters[index]) for key, tensor in values.items()}
        for index, values in state.items()
    }
    groups, first = [], 0
    for group in optimizer.param_groups:
        numbers = list(range(first, first + len(group["params"])))
        groups.append({**group, "params": numbers})
        first += len(numbers)
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})
    # A ZeroRedundancyOptimizer leaves the step counts on the CPU, where fused Adam refuses them.
    for parameter, values in getattr(optimizer, "optim", optimizer).state.items():
        if isinstance(values.get("step"), Tensor):
            values["step"] = values["step"].to(parameter.device)


def num_parameters(optimizer: torch.optim.Optimizer) -> int:
    """The number of parameters that an optimizer updates."""
    return sum(len(group["params"]) for group in optimizer.param_groups)


def laid_out_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """`tensor` in the memory layout of its parameter: fused optimizers pair them by address."""
    if tensor.shape != parameter.shape:
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
