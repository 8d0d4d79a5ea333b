"""`vqvae2 COMMAND ...`: finds the command, and turns what a user can cause into one line.

Exit codes: 0 done, 2 something the message says how to mend, 130 stopped by Ctrl-C.
Set VQVAE2_TRACEBACK=1 to see where an error came from.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module

import vqvae2
from vqvae2.messages import did_you_mean, printable

COMMANDS = {
    "demo": "everything on the built-in images, in minutes, with a report",
    "train": "all stages on your images; repeat the command to go on",
    "reconstruct": "images through a run's codes and back",
    "sample": "new images, by class and seed",
    "inpaint": "a part of your images drawn anew, or all of it in other detail",
    "evaluate": "the figures of a run, into metrics.json",
    "compare": "runs or folders of images side by side",
    "report": "everything about a run in one HTML file",
    "doctor": "whether a run is healthy, in words",
    "presets": "the complete configurations by name",
}


def usage() -> str:
    """What `vqvae2 --help` prints."""
    lines = [f"  {name:<12} {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: vqvae2 COMMAND [options]    (vqvae2 COMMAND --help tells a command's options)",
            "",
            *lines,
            "",
            "first steps:  vqvae2 demo",
            "              vqvae2 train --data FOLDER --run runs/mine",
            "              vqvae2 sample runs/mine",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Runs one command; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(f"vqvae2 {vqvae2.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        return complain(f"Unknown command {name!r}; {did_you_mean(name, COMMANDS)}")
    return guarded(lambda: import_module(f"vqvae2.cli.{name}").main(rest))


def guarded(command: Callable[[], None]) -> int:
    """Runs a command; errors that a user can cause become one line."""
    try:
        command()
    except BrokenPipeError:
        # Whoever reads our output has enough of it, as `| head` has.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return complain("Stopped; what was saved stays.", 130)
    except Exception as error:
        if type(error).__name__ == "Stopped":
            return complain(str(error), 130)
        mendable = isinstance(error, ValueError | OSError | FloatingPointError | MemoryError)
        # By name, so that a command that needs no torch does not import it for this.
        if type(error).__name__ == "OutOfMemoryError":
            return complain(
                "Out of memory; use a smaller --batch, or train with "
                "--levels.0.training.accumulate 2."
            )
        if os.environ.get("VQVAE2_TRACEBACK"):
            raise
        if lost_rank(error):
            return complain(
                "Lost touch with another process of this run; it has ended or cannot be reached "
                f"({sentence(error)[:120]}). The last checkpoint is kept: start all of them again "
                "with the same command."
            )
        if not mendable:
            raise
        return complain(sentence(error))
    return 0


def lost_rank(error: Exception) -> bool:
    """Whether a collective failed because another of several processes is gone."""
    words = ("closed by peer", "reset by peer", "Broken pipe", "remote process", "Timed out")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and isinstance(error, RuntimeError) and any(w in str(error) for w in words)


def sentence(error: Exception) -> str:
    """An error as one line."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        hint = "; free some space and repeat the command: nothing is lost" * (error.errno == 28)
        return f"{error.strerror}{where}{hint}."
    return " ".join(str(error).split())


def complain(message: str, code: int = 2) -> int:
    """Prints one line to the error stream."""
    print(f"vqvae2: {printable(message)}", file=sys.stderr)
    return code
