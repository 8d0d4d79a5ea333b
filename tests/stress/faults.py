"""Faults in training: kills, cut checkpoints, full disks, processes that die.

    python tests/stress/faults.py         # or: make faults

Each case is `vqvae2 train` on a small run, in a process of its own. After a fault the same command
is repeated until it ends by itself. Then models, codes, logs and last checkpoints must equal those
of an undisturbed run, byte for byte, and every error message must be one line. Prints a table of
counts and writes JSON.
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
from vqvae2.cli.main import run as run_command
from vqvae2.runs.folder import RunFolder
from vqvae2.training.stage import has_begun
from vqvae2.training.stages import stages

LAST_STEP = 24

TRAINING = (
    f"steps {LAST_STEP}", "batch 8", "save-every 3", "validate-every 6", "validation-examples 8",
    "log-every 1",
)  # fmt: skip
PRIOR = ("channels 8", "num-heads 1", "num-layers 2", "dropout 0")
AUTOENCODER = (
    "continuous-steps 4", "start-vectors-per-code 2", "model.channels 16",
    "model.residual-channels 8", "model.codebooks.0.num-codes 16",
    "model.codebooks.1.num-codes 16",
)  # fmt: skip


def small_run() -> list[str]:
    """The options of a run that trains all stages in a few seconds."""
    options = ["preset demo", "data.size 16", "data.synthetic-images 400"]
    options += [f"autoencoder.{option}" for option in AUTOENCODER]
    options += [f"levels.{level}.prior.{option}" for level in (0, 1) for option in PRIOR]
    for model in ("autoencoder", "levels.0", "levels.1"):
        options += [f"{model}.training.{option}" for option in TRAINING]
    return [word for option in options for word in f"--{option}".split()]


@dataclass(frozen=True)
class Options:
    """Count how runs end after faults.

    Arguments:
        kills: Number of processes that are killed with SIGKILL at random moments.
        stops: Number of processes that are stopped with SIGTERM.
        cuts: Number of checkpoints that are cut at a random byte.
        full: Number of file systems that are full after a random number of bytes (mounts a tmpfs).
        ranks: Number of runs of two processes of which one is killed.
        seed: Seed of the moments.
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
    """The outcomes of one kind of fault.

    Arguments:
        kind: of fault.
        stages: number of faults by the stage in which they came.
        outcomes: number of runs by their outcome: "equal", or what went wrong.
    """

    kind: str
    stages: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    def stage_text(self) -> str:
        return ", ".join(f"{stage} {number}" for stage, number in self.stages.most_common())


@dataclass(frozen=True)
class Scene:
    """What every kind of fault needs.

    Arguments:
        root: folder of the runs.
        expected: files of the undisturbed run, see `files_of`.
        seconds: time that it took.
    """

    root: Path
    expected: dict[str, bytes]
    seconds: float

    def compare(self, folder: Path, code: int = 0) -> str:
        """ "equal", or what differs from the undisturbed run."""
        if code:
            return "failed"
        files = files_of(folder)
        names = {*files, *self.expected}
        wrong = sorted(name for name in names if files.get(name) != self.expected.get(name))
        return f"differs: {wrong[:3]}" if wrong else "equal"


@dataclass(frozen=True)
class Child:
    """The command in a forked process, whose error stream goes to a file.

    Arguments:
        number: of the process.
        errors: the file.
    """

    number: int
    errors: Path

    def wait(self, seconds: float = 300) -> int:
        """The exit code; negative if a signal ended the process."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            done, status = os.waitpid(self.number, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        raise TimeoutError(f"process {self.number} did not end within {seconds} s")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal, if the process still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, number)

    def complaint(self, *words: str) -> str:
        """ "" if the errors are one line with one of the words, else the last lines."""
        lines = self.lines()
        fine = len(lines) == 1 and lines[0].startswith("vqvae2: ")
        fine = fine and any(word in lines[0] for word in words)
        return "" if fine else f"printed: {' / '.join(lines[-2:])[:300]}"

    def lines(self) -> list[str]:
        lines = self.errors.read_text().splitlines()
        return [line for line in lines if not line.startswith("Stopping after this step")]


def start(
    folder: Path, rank: int = 0, size: int = 1, port: int = 0, errors: Path | None = None
) -> Child:
    """Starts training; forked, so that it starts at once: torch has not computed yet."""
    errors = errors or folder.with_name(f"{folder.name}-errors-{rank}")
    number = os.fork()
    if number:
        return Child(number, errors)
    with errors.open("w") as file, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(file.fileno(), 2)
        if size > 1:
            os.environ |= {
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
                "RANK": str(rank), "LOCAL_RANK": str(rank),
            }  # fmt: skip
        code = 1
        try:
            code = run_command(["train", "--run", str(folder), *small_run()])
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def start_two(folder: Path) -> list[Child]:
    """Starts training by two processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [start(folder, rank, 2, port) for rank in range(2)]


def files_of(folder: Path) -> dict[str, bytes]:
    """All files that must not depend on faults: models, codes, logs, last checkpoints."""
    last = f"checkpoints/*/step-{LAST_STEP:08d}.safetensors"
    patterns = ("model/**/*", "codes/*", "log/*.jsonl", last)
    paths = [path for pattern in patterns for path in folder.glob(pattern) if path.is_file()]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if "timing" not in path.name
    }


def stage_of(folder: Path) -> str:
    """The last stage that has begun; "before" where there is no run yet."""
    run = RunFolder(folder)
    if not run.exists():
        return "before"
    all_stages = stages(run.read())
    begun_stages = [stage.name for stage in all_stages if has_begun(stage, run)]
    logged = [stage.name for stage in all_stages if run.log(stage.name).path.exists()]
    names = [stage.name for stage in all_stages]
    return max([names[0], *begun_stages, *logged], key=names.index)


def interrupt(count: Count, cases: int, scene: Scene, number: signal.Signals) -> None:
    """Sends signals at random moments, on one run until it ends, then on the next."""
    done = runs = 0
    while done < cases:
        folder = scene.root / f"{count.kind}-{runs}"
        runs += 1
        while True:
            child = start(folder)
            if done < cases:
                time.sleep(random.uniform(0, scene.seconds))
                child.send(number)
            code = child.wait()
            if code == 0:
                outcome = scene.compare(folder)
                break
            # Killed by the signal, or stopped as requested; everything else is an error.
            if code == -number or (code == 130 and not child.complaint("To continue")):
                done += 1
                count.stages[stage_of(folder)] += 1
            else:
                outcome = f"exit code {code}, {' / '.join(child.lines()[-2:])[:300]}"
                break
        count.outcomes[outcome] += 1
        shutil.rmtree(folder)


def cut(count: Count, cases: int, scene: Scene) -> None:
    """Cuts a random checkpoint of a killed run at a random byte."""
    done = 0
    while done < cases:
        folder = scene.root / f"cut-{done}"
        child = start(folder)
        time.sleep(random.uniform(0.3, 1) * scene.seconds)
        child.send(signal.SIGKILL)
        child.wait()
        if files := checkpoints_in_use(RunFolder(folder)):
            path = random.choice(files)
            os.truncate(path, random.randrange(path.stat().st_size))
            done += 1
            count.stages[f"{path.parent.name}/{path.name.split('-')[0].split('.')[0]}"] += 1
            again = start(folder)
            code = again.wait()
            outcome = again.complaint("") if code else scene.compare(folder)
            count.outcomes[outcome or "refused"] += 1
        shutil.rmtree(folder, ignore_errors=True)


def checkpoints_in_use(folder: RunFolder) -> list[Path]:
    """The checkpoints of the stages that are not done."""
    if not folder.exists():
        return []
    pending = [stage for stage in stages(folder.read()) if not stage.done(folder)]
    folders = [folder.checkpoints(stage.name) for stage in pending]
    return [path for place in folders for path in sorted(place.glob("*.safetensors"))]


def fill(count: Count, cases: int, scene: Scene) -> None:
    """A file system that is full after a random number of bytes, then has room again."""
    total = sum(len(data) for data in scene.expected.values())
    # What is printed must not be on the full file system.
    mounted, errors = scene.root / "small", scene.root / "errors"
    mounted.mkdir()
    folder = mounted / "run"
    while sum(count.stages.values()) < cases:
        size = random.randrange(64 << 10, 3 * total)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mounted)]
        if subprocess.run(mount, capture_output=True).returncode:
            console.print("full disk: skipped, no file system can be mounted here")
            return
        try:
            child = start(folder, errors=errors)
            if child.wait():
                count.stages[stage_of(folder)] += 1
                wrong = child.complaint("No space left")
                subprocess.run(["mount", "-o", "remount,size=1g", str(mounted)], check=True)
                code = start(folder, errors=errors).wait()
                count.outcomes[wrong or scene.compare(folder, code)] += 1
            elif (outcome := scene.compare(folder)) != "equal":  # there was room: no fault
                count.outcomes[outcome] += 1
        finally:
            subprocess.run(["umount", str(mounted)], check=True)


def kill_one_of_two(count: Count, cases: int, scene: Scene) -> None:
    """Kills one of two processes; the other must end with one line, and both resume."""
    reference = scene.root / "two"
    for child in start_two(reference):
        child.wait()
    scene = Scene(scene.root, files_of(reference), 2 * scene.seconds)
    done = 0
    while done < cases:
        folder, victim = scene.root / f"two-{done}", done % 2
        children = start_two(folder)
        time.sleep(random.uniform(0.3, 1) * scene.seconds)
        children[victim].send(signal.SIGKILL)
        codes = [child.wait() for child in children]
        if codes[victim] != -signal.SIGKILL:  # it had ended before
            shutil.rmtree(folder)
            continue
        done += 1
        count.stages[stage_of(folder)] += 1
        survivor = 1 - victim
        wrong = children[survivor].complaint("Another process") if codes[survivor] else ""
        failed = any([child.wait() for child in start_two(folder)])
        count.outcomes[wrong or scene.compare(folder, int(failed))] += 1
        shutil.rmtree(folder)


def undisturbed(root: Path) -> Scene:
    """Trains once without faults."""
    start_time = time.monotonic()
    child = start(root / "undisturbed")
    assert child.wait() == 0, child.lines()
    scene = Scene(root, files_of(root / "undisturbed"), time.monotonic() - start_time)
    console.print(f"undisturbed run: {scene.seconds:.1f} s, {len(scene.expected)} files")
    return scene


def main() -> None:
    options = tyro.cli(Options)
    torch.set_num_threads(1)
    random.seed(options.seed)
    root = Path(tempfile.mkdtemp(prefix="vqvae2-faults-"))
    scene = undisturbed(root)
    kinds: list[tuple[str, int, Callable[[Count, int], None]]] = [
        ("kill -9", options.kills, lambda c, n: interrupt(c, n, scene, signal.SIGKILL)),
        ("SIGTERM", options.stops, lambda c, n: interrupt(c, n, scene, signal.SIGTERM)),
        ("cut checkpoint", options.cuts, lambda c, n: cut(c, n, scene)),
        ("full disk", options.full, lambda c, n: fill(c, n, scene)),
        ("one of two killed", options.ranks, lambda c, n: kill_one_of_two(c, n, scene)),
    ]
    counts, rows = [], []
    for kind, cases, make_faults in kinds:
        if not cases:
            continue
        count = Count(kind)
        make_faults(count, cases)
        counts.append(count)
        outcomes = ", ".join(f"{n} {outcome}" for outcome, n in count.outcomes.most_common())
        rows.append([kind, str(sum(count.stages.values())), count.stage_text(), outcomes])
        console.print(": ".join(rows[-1]))
    table("runs after faults", ["fault", "faults", "in", "runs at the end"], rows)
    results = {count.kind: {"in": count.stages, "ends": count.outcomes} for count in counts}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=1) + "\n")
    shutil.rmtree(root)
    wrong = [outcome for count in counts for outcome in count.outcomes if outcome != "equal"]
    sys.exit(f"{len(wrong)} kinds of outcome are not equal: {wrong[:3]}" if wrong else 0)


if __name__ == "__main__":
    main()
