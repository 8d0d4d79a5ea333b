"""Which device a command uses: the one named, or the best that is there; and which processes."""

import torch

from vqvae2.distributed import World, launched_world

AUTO = "auto"


def resolve(name: str) -> str:
    """`name` itself, or for "auto" the first of cuda, mps and cpu that is there.

    Raises:
        ValueError: `name` is no device, or not one of this machine.
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"Cannot use --device {name} ({reason}); leave it out or use cpu."
        ) from None
    return name


def share(device: str) -> tuple[World, str]:
    """The processes that share a command (`torchrun -m vqvae2 ...`), and this one's device."""
    world = launched_world(device)
    return world, world.device if world.size > 1 else device
