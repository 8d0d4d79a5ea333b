"""The report of a run: one HTML file that needs no other file and no network.

Images, plots and styles are inside the file. Where a stage is not done, its section names the
command to run.
"""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from vqvae2.files import write_bytes
from vqvae2.report import image_sections, metric_sections, overview, training_sections
from vqvae2.report.blocks import LOSSLESS_SIDE, Block, Findings, Text
from vqvae2.report.doctor import diagnose
from vqvae2.report.formatting import with_code
from vqvae2.report.quality_sections import quality
from vqvae2.report.source import ReportSource
from vqvae2.runs.folder import RunFolder

Section = Callable[[ReportSource], list[Block]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "reconstructions": ("Originals and reconstructions", image_sections.reconstructions),
    "levels": ("What each level contributes", image_sections.levels),
    "codebooks": ("Codes in use", training_sections.codebooks),
    "training": ("Training", training_sections.training),
    "samples": ("Samples", image_sections.samples),
    "quality": ("Quality of the samples", quality),
    "likelihoods": ("Likelihood of validation images", image_sections.likelihoods),
    "metrics": ("All metrics", metric_sections.all_metrics),
    "health": ("Health", lambda source: [Findings(diagnose(source.folder))]),
    "data": ("Data", metric_sections.data),
    "config": ("Config", metric_sections.config),
}
"""Title and content of each section, by its anchor in the page."""


def write_report(folder: RunFolder, device: str = "cpu") -> Path:
    """Writes report.html into a run folder, atomically, and returns its path."""
    source = ReportSource(folder, device)
    size = source.config.data.size
    html = template().render(
        name=folder.path.resolve().name,
        facts=overview.facts(source),
        summary=blocks_or_note(overview.summary, source),
        sections=[
            (name, title, blocks_or_note(make, source)) for name, (title, make) in SECTIONS.items()
        ],
        # Integer factors: every pixel of a small image is a square.
        side=size * max(1, round(96 / size)),
        large_side=size * max(1, 128 // size),
        is_jpeg=size > LOSSLESS_SIDE,
    )
    path = folder.path / "report.html"
    write_bytes(path, html.encode())
    return path


def blocks_or_note(make: Section, source: ReportSource) -> list[Block]:
    """The content of a section; where its stage is not done or files are missing, a sentence."""
    try:
        return make(source)
    except ValueError as error:
        return [Text(str(error), "note")]


def template() -> Template:
    """The page; everything put into it is escaped unless it is marked as safe."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["with_code"] = with_code
    text = resources.files("vqvae2.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(text)
