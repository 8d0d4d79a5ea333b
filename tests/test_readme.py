import re
from pathlib import Path

from test_layers import ROOMS

from vqvae2.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_its_code_runs():
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {}
    exec(code, names)
    assert names["images"].shape == (1, 3, 32, 32)


def test_its_tree_is_the_real_tree():
    tree = TEXT.split("## The tree")[1].split("```")[1]
    shown = re.findall(r"^  (\w+)(?:/|\.py) ", tree, re.MULTILINE)
    assert shown == [room for line in ROOMS for room in line]


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)", TEXT):
        assert (ROOT / target).exists(), target


def test_its_commands_exist():
    for command in re.findall(r"^    vqvae2 (\w+)", TEXT, re.MULTILINE):
        assert command in COMMANDS
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", TEXT):
        assert f"\n{target}:" in f"\n{makefile}"


def test_no_page_of_the_docs_links_nowhere():
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
