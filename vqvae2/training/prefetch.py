"""The batches of coming steps, prepared by a thread while the device computes."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from vqvae2.transfers import pin

Part = TypeVar("Part")


def batches_ahead(
    batch: Callable[[int], list[Part]], steps: range, device: torch.device
) -> Iterator[list[Part]]:
    """The batches of some steps, each prepared while the one before is used.

    They are on the CPU; for a GPU they are pinned, so that their copies to it are asynchronous.

    Arguments:
        batch: the parts of the batch of a step.
        steps: which ones.
        device: where they will be used.
    """

    def prepare(step: int) -> list[Part]:
        parts = batch(step)
        return pin(parts) if device.type == "cuda" else parts

    if not steps:
        return
    with ThreadPoolExecutor(1) as thread:
        use_one_thread(thread)
        pending = thread.submit(prepare, steps[0])
        for step in steps:
            parts = pending.result()
            if step + 1 in steps:
                pending = thread.submit(prepare, step + 1)
            yield parts


def use_one_thread(thread: ThreadPoolExecutor) -> None:
    """Makes a pool of one thread compute without further threads.

    With an OpenMP team of its own there would be more threads than cores, and all of them, those
    of the training too, would sleep at every barrier instead of spinning: a step of 64x64 images
    on two cores takes 81 ms instead of 61 (docs/log.md).
    """
    threads = torch.get_num_threads()
    thread.submit(torch.get_num_threads).result()  # which would set the number later
    thread.submit(torch.set_num_threads, 1).result()
    torch.set_num_threads(threads)  # the matrix library has one number for all threads
