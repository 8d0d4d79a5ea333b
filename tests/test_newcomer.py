"""The scripts and pages that a newcomer types: each runs, and the scripts stay short."""

import re
from pathlib import Path

import datasets
import pytest
from newcomer import inside, make_place, run_code
from PIL import Image

from vqvae2 import VQVAE

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "examples" / "newcomer"

MOST_LINES = {
    "sample_a_folder": 3,
    "train_an_autoencoder": 12,
    "quantize_sound": 6,
    "quantize_video": 6,
    "edit_an_image": 4,
    "codes_of_a_folder": 3,
}


def lines_of(code: str) -> list[str]:
    """The lines of a script without its docstring, comments and empty lines."""
    body = re.sub(r'^""".*?"""', "", code, flags=re.DOTALL)
    lines = (line.strip() for line in body.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    make_place(folder)
    return folder


def run_script(name: str, place: Path) -> dict[str, object]:
    names: dict[str, object] = {}
    with inside(place):
        run_code((SCRIPTS / f"{name}.py").read_text(encoding="utf-8"), names)
    return names


def test_every_script_is_listed():
    assert {path.stem for path in SCRIPTS.glob("*.py")} == set(MOST_LINES)


@pytest.mark.parametrize("name", MOST_LINES)
def test_a_script_is_short(name):
    code = (SCRIPTS / f"{name}.py").read_text(encoding="utf-8")
    assert len(lines_of(code)) <= MOST_LINES[name]


def test_a_folder_becomes_16_samples(place):
    run_script("sample_a_folder", place)
    samples = sorted((place / "samples").glob("*.png"))
    assert [path.name[:4] for path in samples] == ["cat-"] * 8 + ["dog-"] * 8


def test_an_autoencoder_learns_in_ones_own_loop(place):
    names = run_script("train_an_autoencoder", place)
    loaded = VQVAE.from_pretrained(place / "autoencoder")
    state = names["model"].state_dict()
    assert all(value.equal(state[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize(
    ("name", "shape"), [("quantize_sound", (8, 500)), ("quantize_video", (2, 4, 8, 8))]
)
def test_a_codebook_fits_a_model_of_ones_own(name, shape, place):
    names = run_script(name, place)
    assert names["quantized"].codes.shape == shape
    assert names["quantized"].vectors.shape == (shape[0], 16, *shape[1:])
    assert names["codebook"].counts.std() > 0


def test_half_of_an_image_is_edited(place):
    names = run_script("edit_an_image", place)
    assert len(names["edits"]) == 4
    with Image.open(place / "edits.png") as grid:
        assert grid.width > 64


def test_codes_of_a_folder_become_a_data_set(place):
    codes = run_script("codes_of_a_folder", place)["codes"]
    assert isinstance(codes, datasets.Dataset)
    assert len(codes) == 48
    assert set(codes["class"]) == {"cat", "dog"}
    assert [len(codes[0][f"level_{level}"]) for level in (0, 1)] == [4, 16]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # open images
@pytest.mark.parametrize("page", ["tour", "faq"])
def test_the_blocks_of_a_page_run_one_after_the_other(page, place):
    blocks = blocks_of(ROOT / "docs" / f"{page}.md")
    assert blocks
    names: dict[str, object] = {}
    with inside(place):
        for block in blocks:
            run_code(block, names)
