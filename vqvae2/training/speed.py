"""What a step computes, and what the machine could: the figures beside examples a second.

Model FLOPs are those of convolutions and matrix products, forward and backward, as torch counts
them. The peak is the rate of large matrix products on the same device, in the dtype of training.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.training.loop import Task, to_device

SIDES = {"cpu": 1024, "cuda": 8192}
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """What examples a second are a share of.

    Arguments:
        flops: of an example, forward and backward.
        peak: floating point operations a second of all ranks together.
    """

    flops: float
    peak: float

    def share(self, rate: float) -> float:
        """Part of the peak that `rate` examples a second reach."""
        return rate * self.flops / self.peak


def measure_speed(task: Task, step: int, accelerator: Any) -> Speed:
    """What the task's `step` costs on this machine; takes about as long as two steps.

    What is computed again instead of kept counts as often as it is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    parts, count = task.batch(step), 0
    with FlopCounterMode(display=False) as counter, accelerator.autocast():
        for part in parts[:1]:
            part = to_device(part, accelerator.device)
            count = len(part[-1])
            accelerator.backward(task.loss(task.module, part, step).value)
    task.module.zero_grad(set_to_none=True)
    low = accelerator.mixed_precision == "bf16"
    dtype = torch.bfloat16 if low else torch.float32
    rate = matrix_rate(str(accelerator.device), dtype)
    return Speed(counter.get_total_flops() / count, rate * accelerator.num_processes)


@lru_cache
def matrix_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating point operations a second of large matrix products, the best of some."""
    kind = device.partition(":")[0]
    side, best = SIDES.get(kind, 1024), 0.0
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    # The same product as a 1x1 convolution: on CPUs another library, on some twice as fast.
    maps = a.T.reshape(1, side, side // 32, 32).to(memory_format=torch.channels_last)
    filters = b.T.reshape(side, side, 1, 1).to(memory_format=torch.channels_last)
    products: list[Callable[[], Tensor]] = [lambda: a @ b, lambda: F.conv2d(maps, filters)]
    for product in products:
        for _ in range(1 + ROUNDS):  # the first is slower
            wait_for(device)
            begun = time.perf_counter()
            product()
            wait_for(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def wait_for(device: str) -> None:
    """Until a device has done all that it was given."""
    if not device.startswith("cpu"):
        torch.accelerator.synchronize()
