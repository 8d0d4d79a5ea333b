"""Command-line options: parsing with errors of one line, and options that commands share."""

import contextlib
import difflib
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from vqvae2.cli.device import AUTO
from vqvae2.cli.display import monitor
from vqvae2.configuration import Json, to_dict
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
    with one_line_errors(command, option_names(to_dict(value))):
        return tyro.cli(
            type(value),
            prog=f"vqvae2 {command}",
            args=arguments,
            default=value,
            config=(tyro.conf.AvoidSubcommands,),  # a prior keeps its architecture
        )


@contextlib.contextmanager
def one_line_errors(command: str, names: Sequence[str] = ()) -> Iterator[None]:
    """Turns the message that tyro prints about wrong arguments into a ValueError of one line.

    Arguments:
        command: whose arguments they are.
        names: of nested options; a near one is then found by the last part of its name.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            yield
    except SystemExit as stop:
        if not stop.code:
            raise
        text = sentence_of(printed.getvalue(), names)
        stop_mark = "" if text.endswith((".", "?")) else "."
        help_text = f"`vqvae2 {command} --help` lists the options."
        raise ValueError(f"{text}{stop_mark} {help_text}") from None


def sentence_of(message: str, names: Sequence[str] = ()) -> str:
    """The error in the frame that tyro prints, as one sentence.

    The frame has lines of box characters, or of hyphens where the output is not in UTF-8.
    """
    _, *lines = [re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯]", "", line) for line in message.splitlines()]
    parts = re.split(r"^[ ─-]*[─-]{8}[ ─-]*$", "\n".join(lines), flags=re.MULTILINE)
    blocks = [part for part in parts if part.strip()]
    sentence = " ".join(blocks[0].split())
    if sentence.startswith("Missing from"):
        return f"Missing: {', '.join(names_in(blocks[0]))}"
    if sentence.startswith("Unrecognized options"):
        arguments = sentence.partition(":")[2].strip().split(", ")
        options = [one for one in arguments if one.startswith("--")]
        if not options:
            return f"Unexpected argument {arguments[0]!r}"
        near = near_options(options[0], names) if names else []
        near = near or [name for block in blocks[1:] for name in names_in(block)]
        text = f"Unknown option {options[0]}"
        return f"{text}; did you mean {' or '.join(near[:2])}?" if near else text
    return value_sentence(sentence)


def value_sentence(sentence: str) -> str:
    """What tyro says about the value of an option, in plain words."""
    if match := re.match(
        r"invalid choice '(.*)' for argument '(.*)'. Expected .*\((.*)\)", sentence
    ):
        choices = match[3].replace("'", "").strip(",")
        return f"{match[2]} must be one of {choices}, got {match[1]!r}"
    if match := re.match(r"Error parsing (\S+): (.*)", sentence):
        received = re.findall(r"'(.*?)'", match[2])
        kind = "must be a whole number, got" if "int()" in match[2] else "cannot be"
        return f"{match[1]} {kind} {', '.join(map(repr, received))}"
    return sentence


def option_names(config: Json, prefix: str = "--") -> list[str]:
    """The options that change the fields of a config, such as `--levels.0.training.steps`."""
    if isinstance(config, Mapping):
        pairs = [(key.replace("_", "-"), value) for key, value in config.items()]
    elif isinstance(config, list) and config and isinstance(config[0], Mapping):
        pairs = [(str(number), value) for number, value in enumerate(config)]
    else:
        return [prefix.removesuffix(".")]
    return [name for key, value in pairs for name in option_names(value, f"{prefix}{key}.")]


def near_options(option: str, names: Sequence[str]) -> list[str]:
    """The nested options whose name, or its last part, is near to what was given."""
    near = difflib.get_close_matches(option, names, n=1, cutoff=0.85)
    last = {name: name.rpartition(".")[2].removeprefix("--") for name in names}
    given = option.rpartition(".")[2].removeprefix("--")
    ends = difflib.get_close_matches(given, set(last.values()), n=1, cutoff=0.6)
    return near or [name for name, end in last.items() if end in ends]


def names_in(block: str) -> list[str]:
    """Names of options, which are indented by four spaces in the frame."""
    return re.findall(r"^ {5,6}(\S+)", block, flags=re.MULTILINE)


def optional(metavar: str) -> object:
    """Names the value of an option that may be omitted; its help prints no default."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
SamplingPrecision = Literal["float32", "tf32", "bfloat16", "auto"]
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
        with monitor():
            pipeline = Pipeline.open(model).to(device)
        pipeline.decoder = pipeline.require_decoder(self.decoder)
        return pipeline

    def folder(self, model: str, name: str) -> Path:
        """Where the images go: `out` if given, else RUN/name, or ./name outside of a run.

        Raises:
            ValueError: nothing can be written there.
        """
        run = Path(model)
        is_run = (run / "config.json").is_file() and (run / "model").is_dir()
        folder = Path(self.out) if self.out else run / name if is_run else Path(name)
        require_writable(folder, "--out FOLDER")
        return folder


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
        precision: Of the priors: float32, tf32 or bfloat16; auto is bfloat16 on a GPU that has it.
            Another precision draws other images.
    """

    temperature: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    top_k: Annotated[tuple[int, ...], optional("NUMBER ...")] = ()
    top_p: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    guidance: Annotated[tuple[float, ...], optional("NUMBER ...")] = ()
    unconditional: Annotated[tuple[Unconditional, ...], optional("NAME ...")] = ()
    precision: SamplingPrecision = "float32"

    def resolve(self, pipeline: Pipeline) -> tuple[SamplingConfig, ...]:
        """The settings of the model, changed as the options say; one per level.

        Sets the precision of the model.
        """
        pipeline.precision = self.precision
        controls = {name: value for name, value in vars(self).items() if name != "precision"}
        return changed(pipeline.sampling, controls)


def always_equal(sampling: Sequence[SamplingConfig]) -> bool:
    """Whether all samples of a class are equal: every level takes the most probable codes."""
    return all(level.temperature == 0 or level.top_k == 1 for level in sampling)


def require_writable(path: Path, option: str) -> None:
    """Raises ValueError, with the option that names another place, if `path` cannot be written.

    Commands call it before long work.
    """
    existing = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not os.access(existing, os.W_OK):
        raise ValueError(f"{existing} is read-only; write to another place with {option}.")


def require_positive(option: str, value: int) -> None:
    """Raises ValueError for an option that must be at least 1."""
    if value < 1:
        raise ValueError(f"--{option} must be at least 1, got {value}.")
