"""Several processes over gloo on one machine."""

import gc
import os
import socket

import torch
import torch.distributed as dist


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join_group(rank: int, world: int, port: int) -> None:
    """Makes this process one of `world`, as torchrun does."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip


def leave_group() -> None:
    """Ends the group of this process, if it has one.

    What reference cycles still hold of it goes first: freed while the interpreter ends, it can
    abort the process.
    """
    gc.collect()
    if dist.is_initialized():
        dist.destroy_process_group()
