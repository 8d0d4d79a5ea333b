"""`vqvae2 completion`: a script with which a shell completes commands and options."""

import contextlib
import io
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from vqvae2.cli.main import COMMANDS
from vqvae2.cli.options import parse

BASH = """\
_vqvae2() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" options=""
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
    elif [[ "$word" == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$word"))
    else
        COMPREPLY=($(compgen -f -- "$word"))
    fi
}}
complete -o filenames -F _vqvae2 vqvae2"""

ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


@dataclass(frozen=True)
class Options:
    """Print a script that completes commands and options in your shell.

    For bash: vqvae2 completion bash >> ~/.bashrc. For zsh: vqvae2 completion zsh >> ~/.zshrc.
    For fish: vqvae2 completion fish > ~/.config/fish/completions/vqvae2.fish.

    Arguments:
        shell: bash, zsh or fish.
    """

    shell: Annotated[Literal["bash", "zsh", "fish"], Positional, arg(metavar="SHELL")]


def main(arguments: list[str]) -> None:
    """Prints the script."""
    shell = parse(Options, "completion", arguments).shell
    options = {command: options_of(command) for command in COMMANDS}
    if shell == "fish":
        print("\n".join(fish_lines(options)))
        return
    cases = (f'        {name}) options="{" ".join(names)}" ;;' for name, names in options.items())
    script = BASH.format(cases="\n".join(cases), commands=" ".join(["help", *COMMANDS]))
    print((ZSH if shell == "zsh" else "") + script)


def options_of(command: str) -> list[str]:
    """The options that the help of a command lists."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        import_module(f"vqvae2.cli.{command}").main(["--help"])
    return sorted(set(re.findall(r"--[a-z][a-z.-]*[a-z]", printed.getvalue())))


def fish_lines(options: dict[str, list[str]]) -> list[str]:
    """The completions of fish, one line per command and option."""
    lines = [
        f"complete -c vqvae2 -n __fish_use_subcommand -f -a {name} -d '{text}'"
        for name, text in COMMANDS.items()
    ]
    return lines + [
        f"complete -c vqvae2 -n '__fish_seen_subcommand_from {command}' -l {name[2:]}"
        for command, names in options.items()
        for name in names
    ]
