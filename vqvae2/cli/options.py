"""Command-line options: parsing with errors of one line, and options that commands share."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import tyro

from vqvae2.pipeline import Pipeline
from vqvae2.sampling.config import SamplingConfig

T = TypeVar("T")
V = TypeVar("V", int, float)


def parse(options: type[T], command: str, arguments: list[str]) -> T:
    """The options of a command; `--help` prints and exits."""
    with one_line_errors(command):
        return tyro.cli(options, prog=f"vqvae2 {command}", args=arguments)


def parse_known(options: type[T], command: str, arguments: list[str]) -> tuple[T, list[str]]:
    """The options of a command, and the arguments that are not among them."""
    with one_line_errors(command):
        return tyro.cli(
            options, prog=f"vqvae2 {command}", args=arguments, return_unknown_args=True
        )


def change(value: T, command: str, arguments: list[str]) -> T:
    """A copy of a dataclass with the fields changed that `--field.inner VALUE` names."""
    with one_line_errors(command):
        return tyro.cli(
            type(value),
            prog=f"vqvae2 {command}",
            args=arguments,
            default=value,
            config=(tyro.conf.AvoidSubcommands,),  # a prior keeps its architecture
        )


@contextlib.contextmanager
def one_line_errors(command: str) -> Iterator[None]:
    """Turns the message that tyro prints about wrong arguments into a ValueError of one line."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        text = without_box(printed.getvalue()).rstrip(".")
        raise ValueError(f"{text}. `vqvae2 {command} --help` lists the options.") from None


def without_box(message: str) -> str:
    """The sentences inside the frame that tyro draws around an error."""
    lines = [
        re.sub(r"[─━│┃╭╮╰╯]|^-+$|\x1b\[[0-9;]*m", "", line).strip()
        for line in message.splitlines()
    ]
    text = " ".join(line for line in lines if line.strip("- "))
    text = text.split("For full helptext")[0].strip()
    return re.sub(r"^(.+?) \1:", r"\1:", text)  # the title of the frame, repeated by its text


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn; each option takes one value for all levels, or one per level.

    Arguments:
        temperature: Below 1 samples are more typical and less diverse; 0 always takes the most
            probable code. One value, or one per level, coarsest first.
        top_k: Draw from the K most probable codes only. One value, or one per level.
        top_p: Draw from the most probable codes that together have this probability. One value,
            or one per level.
    """

    temperature: tuple[float, ...] = ()
    top_k: tuple[int, ...] = ()
    top_p: tuple[float, ...] = ()

    def resolve(self, pipeline: Pipeline) -> tuple[SamplingConfig, ...]:
        """The settings of the model, changed as the options say; one per level."""
        num_levels = pipeline.autoencoder.config.num_levels
        configs = list(pipeline.config.sampling) or [SamplingConfig()] * num_levels
        for level, temperature in per_level("temperature", self.temperature, num_levels):
            configs[level] = replace(configs[level], temperature=temperature)
        for level, top_k in per_level("top-k", self.top_k, num_levels):
            configs[level] = replace(configs[level], top_k=top_k)
        for level, top_p in per_level("top-p", self.top_p, num_levels):
            configs[level] = replace(configs[level], top_p=top_p)
        return tuple(configs)


def per_level(option: str, values: tuple[V, ...], num_levels: int) -> list[tuple[int, V]]:
    """(level, value) of an option that takes one value, or one per level; [] if not given."""
    if len(values) == 1:
        values *= num_levels
    if len(values) not in (0, num_levels):
        raise ValueError(
            f"--{option} takes one value or one per level ({num_levels}), got {len(values)}."
        )
    return list(enumerate(values))


def require_positive(option: str, value: int) -> None:
    """Raises ValueError for an option that must be at least 1."""
    if value < 1:
        raise ValueError(f"--{option} must be at least 1, got {value}.")


def output_folder(out: str, run: str, name: str) -> Path:
    """Where a command writes files: `out` if given, else RUN/name, or ./name outside of a run."""
    if out:
        return Path(out)
    is_run = (Path(run) / "config.json").is_file() and (Path(run) / "model").is_dir()
    return Path(run) / name if is_run else Path(name)
