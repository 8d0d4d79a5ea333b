"""Fresh processes for measurements, the peak memory of a process, and files of results."""

import json
import multiprocessing
import os
import resource
import socket
from collections.abc import Callable, Mapping
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_process(function: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """The result of a function in a fresh process, so that memory peaks do not add up."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments, options)


def in_processes(size: int, function: Callable[..., T], *arguments: object) -> list[T]:
    """The results of a function in `size` processes that train or measure together (gloo)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=run_rank, args=((rank, size, port), queue, function, arguments))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    results = [queue.get() for _ in processes]
    for process in processes:
        process.join()
    return results


def run_rank(
    place: tuple[int, int, int],
    queue: "SimpleQueue[T]",
    function: Callable[..., T],
    arguments: tuple[object, ...],
) -> None:
    """Puts the result of a function into the queue, as one of several processes."""
    rank, size, port = place
    if size > 1:
        os.environ |= {
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
            "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
    queue.put(function(*arguments))


def peak_mib() -> float:
    """Peak memory of this process in MiB."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # Unlike `ru_maxrss` this does not include the process that started this one.
    words = status.read_text().split()
    return float(words[words.index("VmHWM:") + 1]) / 1024


def write_results(path: Path, results: Mapping[str, object]) -> None:
    """Writes results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
