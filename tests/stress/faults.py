"""Faults: kills at any moment, cut checkpoints, full disks, ranks that die; what becomes of a run.

    python benchmarks/faults.py           # or: make faults

Every case is the real command on a small run in a process of its own. After a fault the same
command is given again until it ends by itself; then models, codes, logs and last states must be
those of a run that nothing happened to, byte for byte. Whatever a fault says must be one line.
Prints a table of counts and writes JSON.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import tyro

from vqvae2.cli.display import console, table
from vqvae2.cli.main import run as command
from vqvae2.runs.folder import RunFolder

SMALL = (
    "--preset demo --data.size 16 --data.synthetic-images 400 "
    "--autoencoder.training.steps 24 --autoencoder.training.batch 8 "
    "--autoencoder.training.save-every 3 --autoencoder.training.validate-every 6 "
    "--autoencoder.training.validation-examples 8 --autoencoder.training.log-every 1 "
    "--autoencoder.continuous-steps 4 --autoencoder.start-vectors-per-code 2 "
    "--autoencoder.model.channels 16 --autoencoder.model.residual-channels 8 "
    "--autoencoder.model.codebooks.0.num-codes 16 "
    "--autoencoder.model.codebooks.1.num-codes 16 --levels.0.prior.channels 8 "
    "--levels.0.prior.residual-channels 8 --levels.0.prior.num-layers 2 "
    "--levels.1.prior.channels 8 --levels.1.prior.residual-channels 8 "
    "--levels.1.prior.num-layers 2 --levels.0.prior.dropout 0 --levels.1.prior.dropout 0 "
    "--levels.0.training.steps 24 --levels.0.training.batch 8 "
    "--levels.0.training.save-every 3 --levels.0.training.log-every 1 "
    "--levels.0.training.validate-every 6 --levels.0.training.validation-examples 8 "
    "--levels.1.training.steps 24 --levels.1.training.batch 8 "
    "--levels.1.training.save-every 3 --levels.1.training.log-every 1 "
    "--levels.1.training.validate-every 6 --levels.1.training.validation-examples 8"
).split()


@dataclass(frozen=True)
class Options:
    """Count what becomes of a run.

    Arguments:
        kills: Processes killed with SIGKILL at random moments.
        stops: Processes asked to stop with SIGTERM.
        cuts: Checkpoints cut at a random byte.
        full: File systems that are full after a random number of bytes (mounts a tmpfs).
        ranks: Runs of two processes of which one is killed.
        seed: Of the moments.
        out: JSON file.
    """

    kills: int = 200
    stops: int = 50
    cuts: int = 100
    full: int = 30
    ranks: int = 6
    seed: int = 0
    out: Path = Path("build/faults.json")


@dataclass
class Count:
    """What became of the cases of a kind.

    Arguments:
        kind: of fault.
        stages: in which stage the faults came.
        ends: "equal", or what went wrong.
    """

    kind: str
    stages: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Child:
    """The command in a process of its own, with what it prints in a file.

    It is forked, so that it starts at once; torch has one thread and has not computed yet.
    """

    number: int
    printed: Path

    def wait(self, seconds: float = 300) -> int:
        """Its exit code; negative if a signal ended it."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            done, status = os.waitpid(self.number, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        raise TimeoutError(f"process {self.number} did not end within {seconds} s")

    def send(self, what: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, what)

    def said(self) -> list[str]:
        """The lines of its error stream."""
        return self.printed.read_text().splitlines()


def start(
    folder: Path, rank: int = 0, world: int = 1, port: int = 0, printed: Path | None = None
) -> Child:
    """Starts the command on a run folder; what it prints goes beside it unless told."""
    printed = printed or folder.with_name(f"{folder.name}-said-{rank}")
    number = os.fork()
    if number:
        return Child(number, printed)
    with printed.open("w") as errors, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        if world > 1:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world),
                "RANK": str(rank), "LOCAL_RANK": str(rank),
            }  # fmt: skip
        code = 1
        try:
            code = command(["train", "--run", str(folder), *SMALL])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def outcome(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on faults: models, codes, logs, the last states."""
    patterns = ("model/**/*", "codes/*", "log/*.jsonl", "checkpoints/*/step-00000024.safetensors")
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if "timing" not in path.name
    }


def stage_of(folder: Path) -> str:
    """How far a run has come."""
    for stage in ("prior1", "prior0", "codes"):
        place = folder / ("codes" if stage == "codes" else f"log/{stage}.jsonl")
        if place.exists():
            return stage
    return "autoencoder" if (folder / "config.json").exists() else "before"


def compared(folder: Path, whole: dict[str, bytes]) -> str:
    """What differs, or the word "equal"."""
    found = outcome(folder)
    wrong = sorted(name for name in whole if found.get(name) != whole[name])
    return "equal" if not wrong and set(found) == set(whole) else f"differs: {wrong[:3]}"


def one_line(child: Child, *words: str) -> str:
    """Nothing if what was said is one line with one of the words, else what was said."""
    said = [line for line in child.said() if not line.startswith("Stopping after this step")]
    fine = len(said) == 1 and said[0].startswith("vqvae2: ") and any(w in said[0] for w in words)
    return "" if fine else f"said: {' / '.join(said[-2:])[:300]}"


def interrupted(
    count: Count,
    cases: int,
    root: Path,
    whole: dict[str, bytes],
    seconds: float,
    what: signal.Signals,
) -> None:
    """Signals at random moments, again and again on one run until it ends; then another run."""
    done = number = 0
    while done < cases:
        folder = root / f"{count.kind}-{number}"
        number += 1
        while True:
            child = start(folder)
            if done < cases:
                time.sleep(random.uniform(0, seconds))
                child.send(what)
            code = child.wait()
            if code == 0:
                end = compared(folder, whole)
                break
            # Killed, or stopped as asked; anything else it has brought upon itself.
            if code == -what or (code == 130 and not one_line(child, "To continue")):
                done += 1
                count.stages[stage_of(folder)] += 1
            else:
                end = f"exit code {code}, {' / '.join(child.said()[-2:])[:300]}"
                break
        count.ends[end] += 1
        shutil.rmtree(folder)


def cut(count: Count, cases: int, root: Path, whole: dict[str, bytes], seconds: float) -> None:
    """Cuts a random checkpoint of a run that was killed, at a random byte."""
    done = 0
    while done < cases:
        folder = root / f"cut-{done}"
        child = start(folder)
        time.sleep(random.uniform(0.3, 1) * seconds)
        child.send(signal.SIGKILL)
        child.wait()
        # Those of a stage that is done are of no more use.
        files = [
            path
            for path in sorted(folder.glob("checkpoints/*/*.safetensors"))
            if not RunFolder(folder).done(path.parent.name)
        ]
        if files:
            path = random.choice(files)
            os.truncate(path, random.randrange(path.stat().st_size))
            done += 1
            count.stages[f"{path.parent.name}/{path.name.split('-')[0].split('.')[0]}"] += 1
            again = start(folder)
            code = again.wait()
            count.ends[compared(folder, whole) if code == 0 else one_line(again, "")] += 1
        shutil.rmtree(folder, ignore_errors=True)


def fill(count: Count, cases: int, root: Path, whole: dict[str, bytes]) -> None:
    """A file system that is full after a random number of bytes, then has room again."""
    total = sum(len(data) for data in whole.values())
    while sum(count.stages.values()) < cases:
        place = root / "small"
        place.mkdir(exist_ok=True)
        size = random.randrange(64 << 10, 3 * total)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if subprocess.run(mount, capture_output=True).returncode:
            console.print("full disk: left out, no file system could be mounted here")
            return
        try:
            folder = place / "run"
            # What it says must not lie on the full file system.
            child = start(folder, printed=root / "said")
            code = child.wait()
            if code != 0:
                count.stages[stage_of(folder)] += 1
                wrong = one_line(child, "No space left")
                subprocess.run(["mount", "-o", "remount,size=1g", str(place)], check=True)
                code = start(folder, printed=root / "said").wait()
                count.ends[wrong or (compared(folder, whole) if code == 0 else "failed")] += 1
            elif (end := compared(folder, whole)) != "equal":  # it had room: no fault
                count.ends[end] += 1
        finally:
            subprocess.run(["umount", str(place)], check=True)


def die(count: Count, cases: int, root: Path, seconds: float) -> None:
    """Two processes of which one is killed; the other must end in a line, both go on again."""

    def both(folder: Path) -> list[Child]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return [start(folder, rank, 2, port) for rank in range(2)]

    reference = root / "two-whole"
    for child in both(reference):
        child.wait()
    whole = outcome(reference)
    number = 0
    while number < cases:
        folder, victim = root / f"two-{number}", number % 2
        children = both(folder)
        time.sleep(random.uniform(0.3, 1) * seconds)
        children[victim].send(signal.SIGKILL)
        codes = [child.wait() for child in children]
        if codes[victim] != -signal.SIGKILL:  # it had come to its end
            shutil.rmtree(folder)
            continue
        number += 1
        count.stages[stage_of(folder)] += 1
        wrong = ""
        if codes[1 - victim] != 0:
            wrong = one_line(children[1 - victim], "another process")
        codes = [child.wait() for child in both(folder)]
        count.ends[wrong or (compared(folder, whole) if codes == [0, 0] else "failed")] += 1
        shutil.rmtree(folder)


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    random.seed(options.seed)
    root = Path(tempfile.mkdtemp(prefix="vqvae2-faults-"))
    begun = time.monotonic()
    code = start(root / "whole").wait()
    seconds = time.monotonic() - begun
    whole = outcome(root / "whole")
    console.print(f"a run that nothing happens to: {seconds:.1f} s, {len(whole)} files")
    assert code == 0
    kinds: list[tuple[Count, int, Callable[[Count, int], None]]] = [
        (
            Count("kill -9"),
            options.kills,
            lambda c, n: interrupted(c, n, root, whole, seconds, signal.SIGKILL),
        ),
        (
            Count("SIGTERM"),
            options.stops,
            lambda c, n: interrupted(c, n, root, whole, seconds, signal.SIGTERM),
        ),
        (Count("cut checkpoint"), options.cuts, lambda c, n: cut(c, n, root, whole, seconds)),
        (Count("full disk"), options.full, lambda c, n: fill(c, n, root, whole)),
        (Count("dying rank"), options.ranks, lambda c, n: die(c, n, root, 2 * seconds)),
    ]
    for count, cases, make in kinds:
        if cases:
            make(count, cases)
            stages = ", ".join(f"{stage} {n}" for stage, n in count.stages.most_common())
            console.print(f"{count.kind}: {dict(count.ends)} ({stages})")
    rows = [
        [
            count.kind,
            str(sum(count.stages.values())),
            ", ".join(f"{stage} {n}" for stage, n in count.stages.most_common()),
            ", ".join(f"{n} {end}" for end, n in count.ends.most_common()),
        ]
        for count, cases, _ in kinds
        if cases
    ]
    table("what became of them", ["fault", "faults", "in", "runs at the end"], rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found = {count.kind: {"in": count.stages, "ends": count.ends} for count, _, _ in kinds}
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    shutil.rmtree(root)
    bad = [end for count, _, _ in kinds for end in count.ends if end != "equal"]
    sys.exit(f"{len(bad)} kinds of end are not equal: {bad[:3]}" if bad else 0)


if __name__ == "__main__":
    main()
