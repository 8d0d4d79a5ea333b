"""The device and the processes that a command uses."""

import torch

from vqvae2.distributed import World, launched_world

AUTO = "auto"


def resolve(name: str) -> str:
    """The named device; for "auto" the first of cuda, mps and cpu that is available.

    Raises:
        ValueError: This machine has no such device.
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ValueError(
            f"Cannot use --device {name}; this machine has {', '.join(devices())}."
        ) from None
    return name


def devices() -> list[str]:
    """The devices of this machine by their names in torch."""
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    return ["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]


def share(name: str) -> tuple[World, str]:
    """The processes that share a command (`torchrun -m vqvae2 ...`), and this one's device."""
    device = resolve(name)
    world = launched_world(device)
    return world, world.device if world.size > 1 else device
