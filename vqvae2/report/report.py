"""The report of a run: one HTML file that needs no other file and no network.

Images, plots and styles are inside the file. Sections of stages that are not done are left out;
a list at the top says what each of them lacks, and which command to run.
"""

from collections.abc import Callable
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template

from vqvae2.data.images import Progress, quiet
from vqvae2.files import write_bytes
from vqvae2.report import image_sections, metric_sections, overview, training_sections
from vqvae2.report.blocks import LOSSLESS_SIDE, Block, Findings
from vqvae2.report.formatting import with_code
from vqvae2.report.quality_sections import quality
from vqvae2.report.source import ReportSource
from vqvae2.runs.folder import RunFolder

Section = Callable[[ReportSource], list[Block]]

SECTIONS: dict[str, tuple[str, Section]] = {
    "samples": ("Samples", image_sections.samples),
    "reconstructions": ("Originals and reconstructions", image_sections.reconstructions),
    "levels": ("What each level contributes", image_sections.levels),
    "health": ("Health", lambda source: [Findings(source.findings)]),
    "summary": ("Metrics in short", overview.summary),
    "quality": ("Quality of the samples", quality),
    "codebooks": ("Codes in use", training_sections.codebooks),
    "training": ("Training curves", training_sections.training),
    "likelihoods": ("What the priors expect", image_sections.likelihoods),
    "metrics": ("All metrics", metric_sections.all_metrics),
    "data": ("Data", metric_sections.data),
    "config": ("Config", metric_sections.config),
}
"""Title and content of each section, by its anchor in the page: plain words first."""

FIRST_FOR_RESEARCHERS = "summary"
"""The section above which a heading announces the researchers' part."""


def write_report(
    folder: RunFolder, device: str = "cpu", path: Path | None = None, progress: Progress = quiet
) -> Path:
    """Writes the report of a run, atomically, and returns its path.

    Arguments:
        folder: the run.
        device: where its models compute.
        path: of the HTML file; report.html in the run folder by default.
        progress: called after each section.
    """
    path = path or folder.path / "report.html"
    write_bytes(path, render_report(folder, device, progress).encode())
    return path


def render_report(folder: RunFolder, device: str = "cpu", progress: Progress = quiet) -> str:
    """The report of a run as HTML; the arguments are those of `write_report`."""
    source = ReportSource(folder, device)
    size = source.config.data.size
    top = overview.top(source)
    sections, missing = present_sections(source, progress)
    return template().render(
        name=folder.path.resolve().name,
        lead=overview.lead(source),
        top=top,
        settings=overview.settings(source),
        missing=missing,
        sections=sections,
        researchers=FIRST_FOR_RESEARCHERS,
        # Integer factors: every pixel of a small image is a square.
        side=size * max(1, round(96 / size)),
        large_side=size * max(1, 128 // size),
        is_jpeg=size > LOSSLESS_SIDE,
    )


def present_sections(
    source: ReportSource, progress: Progress = quiet
) -> tuple[list[tuple[str, str, list[Block]]], dict[str, list[str]]]:
    """The sections that have content, and the titles of the others by what they lack.

    Returns:
        sections: anchor, title and blocks of each.
        missing: titles by the sentence that says what is not done, or which files are missing.
    """
    sections: list[tuple[str, str, list[Block]]] = []
    missing: dict[str, list[str]] = {}
    for number, (anchor, (title, make)) in enumerate(SECTIONS.items()):
        progress("report", number, len(SECTIONS))
        try:
            sections.append((anchor, title, make(source)))
        except ValueError as error:
            missing.setdefault(str(error), []).append(title)
    progress("report", len(SECTIONS), len(SECTIONS))
    return sections, missing


def template() -> Template:
    """The page; everything put into it is escaped unless it is marked as safe."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["with_code"] = with_code
    text = resources.files("vqvae2.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(text)
