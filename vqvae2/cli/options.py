"""Options of a command: tyro reads them, and what it cannot read becomes one line."""

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

T = TypeVar("T")


def parse(options: type[T], command: str, arguments: list[str]) -> T:
    """The options of a command; `--help` prints and exits."""
    with one_line(command):
        return tyro.cli(options, prog=f"vqvae2 {command}", args=arguments)


def parse_known(options: type[T], command: str, arguments: list[str]) -> tuple[T, list[str]]:
    """The options of a command, and the arguments that are not among them."""
    with one_line(command):
        parsed: tuple[T, list[str]] = tyro.cli(
            options, prog=f"vqvae2 {command}", args=arguments, return_unknown_args=True
        )
        return parsed


def change(value: T, command: str, arguments: list[str]) -> T:
    """A dataclass with the fields changed that `--field.inner NEW` names."""
    with one_line(command):
        kept = (tyro.conf.AvoidSubcommands,)  # a prior stays of the kind that it is
        return tyro.cli(
            type(value), prog=f"vqvae2 {command}", args=arguments, default=value, config=kept
        )


class one_line(contextlib.AbstractContextManager[None]):
    """Turns tyro's box of an error into a ValueError of one line."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.said = io.StringIO()
        self.errors = contextlib.redirect_stderr(self.said)

    def __enter__(self) -> None:
        self.errors.__enter__()

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """Raises what tyro printed; leaves help and success alone."""
        self.errors.__exit__(kind, value, traceback)
        if isinstance(value, SystemExit) and value.code:
            lines = [
                re.sub(r"[─━│┃╭╮╰╯]|^-+$|\x1b\[[0-9;]*m", "", line).strip()
                for line in self.said.getvalue().splitlines()
            ]
            text = " ".join(line for line in lines if line.strip("- "))
            text = text.split("For full helptext")[0].strip()
            text = re.sub(r"^(.+?) \1:", r"\1:", text)  # the box's title, said again
            raise ValueError(
                f"{text}. `vqvae2 {self.command} --help` tells the options."
            ) from None
