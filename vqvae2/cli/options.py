"""Command-line options: parsing with errors of one line, and options that commands share."""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from vqvae2.cli.device import AUTO
from vqvae2.pipeline import DecoderName, Pipeline
from vqvae2.sampling.config import SamplingConfig, Unconditional, changed

T = TypeVar("T")


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
        text = sentence_of(printed.getvalue())
        stop_mark = "" if text.endswith((".", "?")) else "."
        help_text = f"`vqvae2 {command} --help` lists the options."
        raise ValueError(f"{text}{stop_mark} {help_text}") from None


def sentence_of(message: str) -> str:
    """The error in the frame that tyro prints, as one sentence."""
    _, *lines = [re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", line) for line in message.splitlines()]
    blocks = "\n".join(lines).split("─" * 8)
    sentence = " ".join(blocks[0].replace("─", " ").split())
    if sentence.startswith("Missing from"):
        return f"Missing: {', '.join(names_in(blocks[0]))}"
    if sentence.startswith("Unrecognized options"):
        near = [name for block in blocks[1:] for name in names_in(block)]
        sentence = sentence.replace("Unrecognized options", "Unknown arguments")
        return f"{sentence}; did you mean {' or '.join(near[:2])}?" if near else sentence
    return sentence


def names_in(block: str) -> list[str]:
    """Names of options, which are indented by four spaces."""
    return re.findall(r"^ {5}(\S+)", block, flags=re.MULTILINE)


def optional(metavar: str) -> object:
    """Names the value of an option that may be omitted; its help prints no default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
Device = Annotated[str, tyro.conf.arg(metavar="DEVICE")]


@dataclass(frozen=True)
class OutputOptions:
    """How a model makes images, and where they go.

    Arguments:
        out: Folder for the images; by default inside RUN, or inside the current folder for a
            saved pipeline.
        batch: Number of images at a time. It limits the memory and changes no image.
        device: cpu, cuda, cuda:1 or mps; by default the fastest that is available.
        decoder: plain, which minimises the squared error, or sharp; by default sharp where the run
            has trained one.
    """

    out: Annotated[str, optional("FOLDER")] = ""
    batch: int = 64
    device: Device = AUTO
    decoder: Annotated[DecoderName, optional("NAME")] = ""

    def open(self, model: str, device: str) -> Pipeline:
        """The models of a run folder or a saved pipeline on a device, with the chosen decoder."""
        pipeline = Pipeline.open(model).to(device)
        pipeline.decoder = pipeline.require_decoder(self.decoder)
        return pipeline

    def folder(self, model: str, name: str) -> Path:
        """Where the images go: `out` if given, else RUN/name, or ./name outside of a run."""
        if self.out:
            return Path(self.out)
        run = Path(model)
        is_run = (run / "config.json").is_file() and (run / "model").is_dir()
        return run / name if is_run else Path(name)


@dataclass(frozen=True)
class SamplingOptions:
    """How codes are drawn; each option takes one value for all levels, or one per level.

    Arguments:
        temperature: Below 1 samples are more typical and less diverse; 0 always takes the most
            probable code. One value, or one per level, coarsest first.
        top_k: Draw from the K most probable codes only. One value, or one per level.
        top_p: Draw from the most probable codes that together have this probability. One value,
            or one per level.
        guidance: Above 1, images show their class more clearly and differ less; 2 to 4 is usual,
            more on coarse levels than on fine ones. Takes twice the time. One value, or one per
            level.
        unconditional: What guidance compares with: null-label, for a run that was trained with
            label dropout, or bayes, for any run, which takes as many times the time as there are
            classes, plus one. One value, or one per level.
    """

    temperature: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    top_k: Annotated[tuple[int, ...], optional("NUMBER ...")] = ()
    top_p: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    guidance: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    unconditional: Annotated[tuple[Unconditional, ...], optional("NAME ...")] = ()

    def resolve(self, pipeline: Pipeline) -> tuple[SamplingConfig, ...]:
        """The settings of the model, changed as the options say; one per level."""
        return changed(pipeline.sampling, vars(self))


def require_positive(option: str, value: int) -> None:
    """Raises ValueError for an option that must be at least 1."""
    if value < 1:
        raise ValueError(f"--{option} must be at least 1, got {value}.")
