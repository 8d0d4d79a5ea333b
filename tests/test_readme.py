"""What the README and the documents show: code, commands, options, links, files, names."""

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from test_layers import ROOMS

import vqvae2
from vqvae2.cli.main import COMMANDS
from vqvae2.configuration import Json, to_dict
from vqvae2.runs.presets import find_preset

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# The log and the changelog describe the past.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if page.name not in ("log.md", "vocabulary.md")]
PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
OPTIONS = json.loads((ROOT / "tests" / "golden" / "options.json").read_text())


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """The commands that a page shows, each with its options."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for line in re.findall(r"vqvae2 [a-z][^`\n#]*", text):
        name, *words = line.split()[1:]
        options = [word.rstrip(",.;)") for word in words if word.startswith("--")]
        if name in COMMANDS or options:
            yield name, options


def config_fields(config: Json) -> Iterator[str]:
    """The paths of all fields of a config, as the command line names them."""
    items = config.items() if isinstance(config, dict) else enumerate(config)
    for key, value in items:
        yield str(key).replace("_", "-")
        if isinstance(value, dict | list):
            yield from (f"{key}.{path}".replace("_", "-") for path in config_fields(value))


def test_the_code_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(code, names)
    assert [tuple(c.shape) for c in names["codes"]] == [(8, 4, 4), (8, 8, 8)]
    assert names["reconstructions"].shape == names["coarse"].shape == (8, 3, 32, 32)
    assert names["images"].shape == (1, 3, 32, 32)


def test_the_tree_of_the_readme_is_the_real_tree():
    tree = README.split("## The tree")[1].split("```")[1]
    rooms = re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE)
    assert rooms == [room for line in ROOMS for room in line]
    folders = re.findall(r"^(\w+)/ ", tree, re.MULTILINE)
    assert folders == ["benchmarks", "docs", "examples", "tests"]


@PAGE
def test_commands_and_options_of_a_page_exist(page):
    presets = (find_preset(name) for name in ("images64", "cifar10-sharp"))
    fields = {path for preset in presets for path in config_fields(to_dict(preset()))}
    for command, options in commands(page):
        assert command in COMMANDS
        for option in options:
            known = option.split(".")[0] in OPTIONS[command]
            if command == "train":
                known = option in OPTIONS[command] or option.removeprefix("--") in fields
            assert known, f"vqvae2 {command} {option}"


def test_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for page in (README, (ROOT / "CONTRIBUTING.md").read_text()):
        for target in re.findall(r"(?:^ {4}|`)make ([\w-]+)", page, re.MULTILINE):
            assert f"\n{target}:" in makefile


@PAGE
def test_links_of_a_page_lead_to_files(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@PAGE
def test_files_that_a_page_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"\b((?:benchmarks|tests|examples|vqvae2)/[\w/.]+\.\w+)\b", text):
        assert "NAME" in name or (ROOT / name).exists(), name


@PAGE
def test_names_that_a_page_names_exist(page):
    rooms = [room for line in ROOMS for room in line]
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`(?:vqvae2\.)?([A-Za-z_]+\.\w[\w.]*)(?:\(.*?\))?`", text):
        parts = name.split(".")
        if parts[0] in rooms + vqvae2.__all__ and parts[-1] not in ("py", "json"):
            assert resolves(parts), name


def resolves(parts: list[str]) -> bool:
    """Whether a dotted name is a module of the package, or something in one."""
    for count in range(len(parts), -1, -1):
        try:
            value = import_module(".".join(["vqvae2", *parts[:count]]))
        except ImportError:
            continue
        for part in parts[count:]:
            fields = getattr(value, "__dataclass_fields__", {})
            annotations = getattr(value, "__annotations__", {})
            if part in fields or part in annotations:
                return True
            if not hasattr(value, part):
                return False
            value = getattr(value, part)
        return True
    return False
