"""The rooms of the package: what may import what, and how long files and functions may be."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "vqvae2"

ROOMS = [
    ("code_grid",),
    ("configuration",),
    ("files", "messages", "randomness", "transfers"),
    ("precision",),
    ("distributed",),
    ("saving",),
    ("nn",),
    ("autoencoder", "priors"),
    ("sampling",),
    ("weights",),
    ("imaging",),
    ("pipeline",),
    ("data",),
    ("metrics",),
    ("runs",),
    ("export",),
    ("training", "evaluation"),
    ("report",),
    ("app",),
    ("cli",),
    ("api",),
]
"""A room may import from the lines above its own; rooms of one line do not import one another."""

MODELS = ("nn", "autoencoder", "priors", "sampling")

MAX_FILE_LINES, MAX_FUNCTION_LINES = 400, 50


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
INSIDE = {name: path for name, path in FILES.items() if name not in ("__init__", "__main__")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in FILES.items()}


def room(module: str) -> str:
    return module.split(".")[0]


def imported_modules(name: str) -> set[str]:
    """Full names of everything that a file imports, anywhere in it."""
    modules = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return modules


def imported_files(name: str) -> set[str]:
    """Files of the package that a file imports."""
    prefix = "vqvae2."
    modules = {module.removeprefix(prefix) for module in imported_modules(name)}
    return {module for module in modules if module in INSIDE and module != name}


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                yield name, node


def test_every_file_is_in_a_room():
    rooms = {name for line in ROOMS for name in line}
    assert {room(name) for name in INSIDE} == rooms


def test_imports_point_one_way():
    line_of = {name: number for number, line in enumerate(ROOMS) for name in line}
    for name in INSIDE:
        for other in imported_files(name):
            upwards = line_of[room(other)] < line_of[room(name)]
            assert upwards or room(other) == room(name), f"{name} imports {other}"


def test_no_files_import_one_another_in_a_circle():
    remaining = {name: imported_files(name) for name in INSIDE}
    while remaining:
        free = {name for name, files in remaining.items() if not files & set(remaining)}
        assert free, f"import cycle among {sorted(remaining)}"
        remaining = {name: files for name, files in remaining.items() if name not in free}


@pytest.mark.parametrize("name", FILES)
def test_imports_are_absolute_and_name_what_they_import(name):
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module != "__future__"
            assert all(alias.name != "*" for alias in node.names), "star import"


def test_models_need_torch_alone():
    models = [name for name in INSIDE if room(name) in MODELS]
    allowed = {*sys.stdlib_module_names, "torch", "vqvae2"}
    for name in models:
        assert {room(module) for module in imported_modules(name)} <= allowed, name
    # The same for what they import: nothing but this package is loaded after torch.
    imports = "".join(f"import vqvae2.{name}\n" for name in models)
    code = f"import sys, torch\nold = {{*sys.modules}}\n{imports}print(*({{*sys.modules}} - old))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {room(module) for module in run.stdout.split()} <= allowed


def test_functions_and_files_stay_short():
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    assert not {name: n for name, n in lengths.items() if n > MAX_FILE_LINES}
    lengths = {
        f"{name}.{function.name}": function.end_lineno - function.lineno + 1
        for name, function in functions()
    }
    assert not {name: n for name, n in lengths.items() if n > MAX_FUNCTION_LINES}


def num_lines_with(pattern: str) -> int:
    lines = [line for path in FILES.values() for line in path.read_text().splitlines()]
    return sum(bool(re.search(pattern, line)) for line in lines)


@pytest.mark.parametrize(
    ("pattern", "limit"),
    [(r"\bAny\b", 90), (r"\bcast\(", 12), (r"\b(dict|Mapping)\[str, Any\]", 25)],
    ids=["Any", "cast", "untyped dictionaries"],
)
def test_types_are_rarely_left_open(pattern, limit):
    assert num_lines_with(pattern) <= limit


def test_few_functions_have_six_or_more_parameters():
    long = []
    for name, function in functions():
        arguments = function.args
        names = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        count = len([one for one in names if one.arg not in ("self", "cls")])
        long += [f"{name}.{function.name}"] * (count >= 6)
    assert len(long) <= 10, long
