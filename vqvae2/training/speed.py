"""Speed of a training step: its floating point operations, and the peak rate of the machine.

Model FLOPs are those of convolutions and matrix products, forward and backward, as torch counts
them. The peak is the rate of large matrix products on the same device, in the dtype of training.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from vqvae2.autoencoder.codebook import ForgottenUpdate
from vqvae2.precision import AUTOCAST, FixedPrecision, autocast
from vqvae2.training.loop import Output, Part, Task
from vqvae2.transfers import to_device

if TYPE_CHECKING:
    from accelerate import Accelerator

SIDES = {"cpu": 1024, "cuda": 8192}
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """What a rate of examples per second is compared with.

    Arguments:
        flops: per example, forward and backward.
        peak: floating point operations per second of all processes together.
    """

    flops: float
    peak: float

    def fraction(self, rate: float) -> float:
        """Fraction of the peak that `rate` examples per second reach."""
        return rate * self.flops / self.peak


def measure_speed(
    task: Task[Part, Output],
    step: int,
    accelerator: "Accelerator",
    precision: FixedPrecision = "float32",
) -> Speed:
    """The cost of the task's `step` and the peak of this machine; takes about two steps' time.

    Unknown, 0, where phases begin later: the cost of a step changes then.
    What is recomputed counts as often as it is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    dtype = AUTOCAST.get(precision, torch.float32)
    peak = matrix_rate(str(accelerator.device), dtype) * accelerator.num_processes
    if any(phase.start for phase in task.phases):
        return Speed(0.0, peak)
    training, parts = task.training, task.batch(step)
    with FlopCounterMode(display=False) as counter:
        compute_gradients(task, parts[0], step, precision, accelerator.device)
    num_examples = training.batch // (training.accumulate * accelerator.num_processes)
    return Speed(counter.get_total_flops() / num_examples, peak)


def compute_gradients(
    task: Task[Part, Output],
    part: Part,
    step: int,
    precision: FixedPrecision,
    device: torch.device,
) -> None:
    """Computes the gradients of all phases for one part of a step's batch, and drops them."""
    # A forward pass may change buffers, such as the statistics of a normalisation.
    buffers = [b for phase in task.phases for b in phase.module.buffers()]
    before = [buffer.clone() for buffer in buffers]
    for phase in task.phases:
        with autocast(precision, device), warnings.catch_warnings():
            warnings.simplefilter("ignore", ForgottenUpdate)  # nothing is learnt here
            loss = phase.loss(phase.module, to_device(part, device), step)
        loss.value.backward()
    for phase in task.phases:
        phase.module.zero_grad(set_to_none=True)
    for buffer, value in zip(buffers, before, strict=True):
        buffer.data.copy_(value)


@lru_cache
def matrix_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """Floating point operations per second of large matrix products, the best of several."""
    kind = device.partition(":")[0]
    side, best = SIDES.get(kind, 1024), 0.0
    noise = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(side, side, generator=noise, device=device).to(dtype) for _ in range(2))
    # The same product as a 1x1 convolution: on CPUs another library, on some twice as fast.
    maps = a.T.reshape(1, side, side // 32, 32).to(memory_format=torch.channels_last)
    filters = b.T.reshape(side, side, 1, 1).to(memory_format=torch.channels_last)
    products: list[Callable[[], Tensor]] = [lambda: a @ b, lambda: F.conv2d(maps, filters)]
    for product in products:
        for _ in range(1 + ROUNDS):  # the first is slower
            wait_for(device)
            start = time.perf_counter()
            product()
            wait_for(device)
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def wait_for(device: str) -> None:
    """Waits until a device has done all that it was given."""
    if not device.startswith("cpu"):
        torch.accelerator.synchronize()
