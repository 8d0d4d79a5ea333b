"""The threads that decode images: one pool per process, for all data sets and as long as it runs.

Pillow decodes without Python's lock, so threads suffice. The pool belongs to the process and not
to a data set: a data set can be pickled, and a forked process starts a pool of its own.
"""

import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

PARTS_PER_THREAD = 4
"""Parts of a batch per thread: several, as images differ in size; few, as each has a cost."""

CGROUPS = Path("/sys/fs/cgroup")


class DecodePool:
    """Threads that are started by the first batch and then kept."""

    def __init__(self) -> None:
        self._lock, self._local = threading.Lock(), threading.local()
        self._threads: ThreadPoolExecutor | None = None
        self.size = num_decoders()

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """The results of a function for all items, in their order.

        An exception, such as that of Ctrl-C, cancels what has not begun.
        """
        if getattr(self._local, "decodes", False) or self.size == 1 or len(items) < 2:
            return [function(item) for item in items]
        length = max(1, len(items) // (PARTS_PER_THREAD * self.size))
        parts = [items[first : first + length] for first in range(0, len(items), length)]
        results = self._start().map(lambda part: [function(item) for item in part], parts)
        return [result for part in results for result in part]

    def decode_here(self) -> None:
        """Makes the calling thread, which belongs to another pool, decode its images itself."""
        self._local.decodes = True

    def _start(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self.size, "decode")
            return self._threads


_pool: DecodePool | None = None


def decode_pool() -> DecodePool:
    """The pool of this process."""
    global _pool
    if _pool is None:
        _pool = DecodePool()
    return _pool


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):  # not on Windows
    # Threads do not survive a fork, and one of them may have held the lock.
    os.register_at_fork(after_in_child=_forget_pool)


def num_decoders() -> int:
    """This process's share of the processors; every process of a launcher has as many."""
    num_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, num_processors() // max(1, num_processes))


def num_processors() -> int:
    """The processors that this process may use: by its affinity and the quota of its cgroup."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        allowed = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    quota = cgroup_quota()
    return allowed if math.isinf(quota) else max(1, min(allowed, math.ceil(quota)))


def cgroup_quota(process: Path = Path("/proc/self/cgroup"), root: Path = CGROUPS) -> float:
    """The processors that the cgroup of a process and those above it allow; inf without a limit.

    Arguments:
        process: The file that names the cgroup, in a line "0::/path" (version 2).
        root: The folder of all cgroups.
    """
    try:
        lines = process.read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    groups = [root / line.removeprefix("0::/") for line in lines if line.startswith("0::/")]
    folders = [folder for group in groups for folder in (group, *group.parents)]
    return min((_quota(folder / "cpu.max") for folder in folders), default=math.inf)


def _quota(file: Path) -> float:
    """Processors in a file cpu.max, such as "150000 100000" or "max 100000"."""
    try:
        quota, period = file.read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):  # this cgroup has no limit
        return math.inf
