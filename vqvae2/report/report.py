"""Everything that a run folder holds, as one HTML file that needs nothing else.

Sections of stages that are not done say in a sentence what to run. Images, plots and style lie
inside the file, so it opens offline and can be sent to anyone.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vqvae2.configuration import to_dict
from vqvae2.files import write_bytes
from vqvae2.report.doctor import diagnose
from vqvae2.report.formatting import figure
from vqvae2.report.sections import Page
from vqvae2.runs.folder import RunFolder


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Arguments:
        name: its anchor.
        title: its heading.
        content: what the template shows.
        note: a sentence instead, if there is no content.
    """

    name: str
    title: str
    content: Any = None
    note: str = ""


def write_report(folder: RunFolder, device: str = "cpu") -> Path:
    """Writes report.html into a run folder, whole or not at all; returns its path."""
    page = Page(folder, device)
    makers: dict[str, tuple[str, Callable[[], Any]]] = {
        "reconstructions": ("Originals and reconstructions", page.reconstructions),
        "levels": ("What each level carries", page.levels),
        "codebooks": ("Codes in use", page.codebooks),
        "training": ("Training", page.training),
        "samples": ("Samples", page.samples),
        "quality": ("How good the samples are", page.quality),
        "surprise": ("What surprises the priors", page.surprise),
        "figures": ("All figures", page.figures),
        "health": ("Health", lambda: diagnose(folder)),
        "data": ("Data", page.data),
        "config": ("Config", lambda: json.dumps(to_dict(page.run), indent=2, ensure_ascii=False)),
    }
    sections = [make_section(name, *made) for name, made in makers.items()]
    html = template().render(
        head=page.head(), key=make_section("key", "", page.key_figures), sections=sections
    )
    path = folder.path / "report.html"
    write_bytes(path, html.encode())
    return path


def make_section(name: str, title: str, make: Callable[[], Any]) -> Section:
    """A section, or its sentence where a stage is not done or its files are not to be had.

    The images may lie on another machine and files be damaged: the rest is worth showing then,
    with the library's own words where the section would be.
    """
    try:
        return Section(name, title, make())
    except ValueError as error:
        return Section(name, title, note=str(error))


def template() -> Any:
    """The page; everything put into it is escaped unless it is marked as safe."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["figure"] = figure
    source = resources.files("vqvae2.report").joinpath("template.html")
    return environment.from_string(source.read_text(encoding="utf-8"))
