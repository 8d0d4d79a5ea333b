"""The pool of threads that decode: one per process, of the right size, never in the way."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from noise_images import noise_tensor, save
from PIL import Image

from vqvae2.data import decoders
from vqvae2.data.decode import decode_images
from vqvae2.data.decoders import DecodePool, cgroup_quota, decode_pool, num_decoders


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> DecodePool:
    monkeypatch.setattr(decoders, "num_decoders", lambda: 2)
    monkeypatch.setattr(decoders, "_pool", None)
    return decode_pool()


def test_batches_are_decoded_by_the_same_threads(
    two_threads: DecodePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    paths = [save(tmp_path / f"{seed}.png", seed=seed) for seed in range(9)]
    threads, open_image = set(), Image.open

    def note_thread(source: object) -> Image.Image:
        threads.add(threading.current_thread().name)
        return open_image(source)

    monkeypatch.setattr(Image, "open", note_thread)
    before = threading.active_count()
    for _ in range(5):
        *images, missing = decode_images([*paths, None], 16)
        assert torch.equal(torch.stack(images), noise_tensor(range(9)))
        assert str(missing) == "the row holds no image"
    assert threads <= {"decode_0", "decode_1"}
    assert threading.active_count() - before <= 2


def test_results_keep_their_order_for_any_number_of_items(two_threads: DecodePool) -> None:
    for count in (0, 1, 2, 7, 8, 9, 100):
        assert two_threads.map(lambda item: item**2, range(count)) == [i**2 for i in range(count)]


def test_a_thread_of_another_pool_decodes_by_itself(two_threads: DecodePool) -> None:
    names: list[str] = []

    def work() -> None:
        two_threads.decode_here()
        names.extend(two_threads.map(lambda _: threading.current_thread().name, range(9)))

    thread = threading.Thread(target=work, name="another")
    thread.start()
    thread.join()
    assert set(names) == {"another"}
    assert "another" not in two_threads.map(lambda _: threading.current_thread().name, range(9))


def test_an_error_leaves_the_pool_usable(two_threads: DecodePool) -> None:
    with pytest.raises(ZeroDivisionError):
        two_threads.map(lambda item: 1 // item, [1, 0, 1])
    assert two_threads.map(abs, [-1, 2]) == [1, 2]


@pytest.mark.parametrize(
    ("processors", "quota", "processes", "threads"),
    [
        (8, math.inf, "", 8),
        (8, 2.5, "", 3),
        (8, 0.5, "", 1),
        (8, math.inf, "4", 2),
        (2, 9, "8", 1),
    ],
)
def test_the_processors_that_are_allowed_are_shared_by_the_processes_of_a_machine(
    processors: int, quota: float, processes: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "process_cpu_count", lambda: processors, raising=False)
    monkeypatch.setattr(decoders, "cgroup_quota", lambda: quota)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes or "1")
    assert num_decoders() == threads


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinity")
def test_affinity_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "process_cpu_count", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 9})
    monkeypatch.setattr(decoders, "cgroup_quota", lambda: math.inf)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert num_decoders() == 3


def test_the_quota_is_the_smallest_of_a_cgroup_and_those_above(tmp_path: Path) -> None:
    process, root = tmp_path / "cgroup", tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    process.write_text("3:cpu:/other\n0::/a/b\n")
    assert cgroup_quota(process, root) == math.inf, "no file"
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert cgroup_quota(process, root) == math.inf
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    assert cgroup_quota(process, root) == 1.5
    (root / "cpu.max").write_text("50000 100000\n")
    assert cgroup_quota(process, root) == 0.5
    (root / "cpu.max").write_text("unreadable")
    assert cgroup_quota(process, root) == 1.5
    assert cgroup_quota(tmp_path / "missing", root) == math.inf


def run_script(code: str) -> subprocess.Popen[str]:
    code = f"import os, sys, threading, time\n{code}"
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_forked_while_images_are_decoded_decodes_too(tmp_path: Path) -> None:
    path = str(save(tmp_path / "a.png"))
    script = run_script(f"""
from vqvae2.data import decoders
from vqvae2.data.decode import decode_images
decoders.num_decoders = lambda: 2
running = True
def work():
    while running:
        decode_images([{path!r}] * 32, 16)
decode_images([{path!r}] * 2, 16)  # imports
thread = threading.Thread(target=work)
thread.start()
for _ in range(5):
    child = os.fork()
    if not child:
        os._exit(len(decode_images([{path!r}] * 32, 16)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 32
running = False
thread.join()
""")
    _, errors = script.communicate(timeout=60)
    assert (script.returncode, errors) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
def test_ctrl_c_ends_a_program_that_decodes() -> None:
    script = run_script("""
import signal
from vqvae2.data import decoders
# A shell ignores the signal in what it starts in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
decoders.num_decoders = lambda: 2
def wait(_):
    time.sleep(0.01)
print("ready", flush=True)
decoders.decode_pool().map(wait, range(2000))
""")
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    time.sleep(0.2)
    start = time.monotonic()
    script.send_signal(signal.SIGINT)
    _, errors = script.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - start < 6, "20 s are left to decode"
