import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import vqvae2

INIT = Path(vqvae2.__file__)
HEAVY = {
    "torch", "numpy", "accelerate", "datasets", "PIL", "pyarrow", "matplotlib", "torchmetrics",
    "tyro", "rich", "huggingface_hub",
}  # fmt: skip


def imported_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has imported after `code`."""
    code = f"import sys\n{code}\nprint('modules', *{{name.split('.')[0] for name in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy():
    assert not imported_by("import vqvae2") & HEAVY


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_list_of_commands_is_printed_without_heavy_imports(option):
    code = f"from vqvae2.cli.main import run\nassert run([{option!r}]) == 0"
    assert not imported_by(code) & HEAVY


@pytest.mark.parametrize("name", vqvae2.__all__)
def test_every_public_name_is_imported_on_first_use(name):
    assert getattr(vqvae2, name).__name__ == name
    assert name in dir(vqvae2)


def test_type_checkers_see_the_same_names_as_programs():
    (block,) = (
        node
        for node in ast.parse(INIT.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    imported = {alias.asname: node.module for node in block.body for alias in node.names}
    assert imported == {name: f"vqvae2.{module}" for name, module in vqvae2._MODULES.items()}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = vqvae2.Pipelin
    with pytest.raises(ImportError):
        exec("from vqvae2 import Pipelin")


def test_the_version_is_written_in_one_place():
    assert re.fullmatch(r"\d+\.\d+\.\d+", vqvae2.__version__)
    assert 'dynamic = ["version"]' in (INIT.parent.parent / "pyproject.toml").read_text()


def test_the_version_is_written_once_and_repeated_correctly():
    root = INIT.parent.parent
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [vqvae2.__version__]
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[0] == vqvae2.__version__
