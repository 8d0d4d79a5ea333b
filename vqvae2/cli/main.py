"""`vqvae2 COMMAND ...`: runs a command, and prints errors that a user can cause as one line.

Exit codes: 0 success, 2 an error whose message says what to do, 130 stopped by Ctrl-C.
With VQVAE2_TRACEBACK=1 errors are printed with the place where they occurred.
"""

import contextlib
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from importlib import import_module

import vqvae2
from vqvae2.messages import did_you_mean, one_line, printable

COMMANDS = {
    "demo": "train on built-in images in minutes, and write a report",
    "train": "train on your images; repeat the command to continue",
    "sample": "draw new images, by class and seed",
    "reconstruct": "encode images to codes and decode them again",
    "encode": "write the codes of images as a table",
    "decode": "turn a table of codes into images",
    "inpaint": "draw a part of your images again, or give them other details",
    "app": "open a web page: draw, edit and compare images in a browser",
    "evaluate": "measure a run; the results are written to metrics.json",
    "compare": "compare runs, or folders of images",
    "report": "write everything about a run into one HTML file",
    "doctor": "check whether a run is healthy, with advice",
    "presets": "list the complete configurations",
    "completion": "print a script that completes commands and options in your shell",
}

INDENT = 15


def usage() -> str:
    """What `vqvae2 --help` prints."""
    width = shutil.get_terminal_size().columns
    commands = (
        textwrap.fill(text, width, initial_indent=f"  {name:<12} ", subsequent_indent=" " * INDENT)
        for name, text in COMMANDS.items()
    )
    return "\n".join(
        [
            "usage: vqvae2 COMMAND [options]\n",
            *commands,
            "",
            textwrap.fill("vqvae2 help COMMAND lists the options of a command.", width),
            "",
            "first steps:",
            "  vqvae2 demo",
            "  vqvae2 train --data FOLDER --run runs/mine",
            "  vqvae2 sample runs/mine",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs one command and exits."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Runs one command and returns the exit code."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if name == "help" and rest:
        name, rest = rest[0], ["--help"]
    if name in ("-h", "--help", "help"):
        return guarded(lambda: print(usage()))
    if name in ("--version", "version"):
        return guarded(lambda: print(f"vqvae2 {vqvae2.__version__}"))
    if name not in COMMANDS:
        return fail(f"Unknown command {name!r}; {did_you_mean(name, COMMANDS)}")
    return guarded(lambda: main_of(name)(rest))


def main_of(command: str) -> Callable[[list[str]], None]:
    """Imports a command and returns its `main`."""
    with ended_by_ctrl_c():
        module = import_module(f"vqvae2.cli.{command}")
    entry: Callable[[list[str]], None] = module.main
    return entry


@contextlib.contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Lets Ctrl-C end the process without a word while nothing is begun yet.

    The imports of some packages turn a KeyboardInterrupt into errors of their own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


def guarded(command: Callable[[], None]) -> int:
    """Runs a command; errors that a user can cause become one line."""
    try:
        with printed_help():
            command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed it, as `| head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return fail("Stopped; everything saved so far is kept.", 130)
    except Exception as error:
        return fail_or_raise(error)
    return 0


@contextlib.contextmanager
def printed_help() -> Iterator[None]:
    """Continues after a parser has printed its help, or a console has met a closed output.

    Both exit, and what is still in the buffer of the output would fail after that.
    """
    try:
        yield
    except SystemExit as stop:
        sys.stdout.flush()
        if stop.code:
            raise


def fail_or_raise(error: Exception) -> int:
    """Prints an error that a user can cause, and returns the exit code; raises other errors."""
    # By name: a command that does not need torch does not import it for its exceptions.
    kind = type(error).__name__
    if kind == "Stopped":
        return fail(str(error), 130)
    if kind == "OutOfMemoryError":
        return fail(
            "Out of memory; use a smaller --batch, or train with --levels.0.training.accumulate 2."
        )
    if os.environ.get("VQVAE2_TRACEBACK"):
        raise error
    if is_lost_process(error):
        return fail(
            "Another process of this run has ended or cannot be reached "
            f"({one_line(error)[:120]}). The last checkpoint is kept: start all processes again "
            "with the same command."
        )
    if isinstance(error, OSError):
        return fail(system_error(error))
    if isinstance(error, ValueError | FloatingPointError | MemoryError):
        return fail(" ".join(str(error).split()) or kind)
    raise error


def is_lost_process(error: Exception) -> bool:
    """Whether a collective operation failed because another process has ended."""
    texts = ("closed by peer", "reset by peer", "Broken pipe", "remote process", "Timed out")
    is_distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return (
        is_distributed
        and isinstance(error, RuntimeError)
        and any(text in str(error) for text in texts)
    )


def system_error(error: OSError) -> str:
    """An error of the operating system as one line, with the file."""
    if not error.strerror:
        return " ".join(str(error).split())
    file = f" ({error.filename})" if error.filename else ""
    advice = "; free some space and repeat the command: nothing is lost" * (error.errno == 28)
    return f"{error.strerror}{file}{advice}."


def fail(message: str, code: int = 2) -> int:
    """Prints one line to the error stream and returns the exit code."""
    text = f"vqvae2: {printable(message)}"
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    print(text, file=sys.stderr)
    return code
