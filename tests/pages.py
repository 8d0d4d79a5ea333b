"""The pages of reports, in parts."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from vqvae2.report.report import write_report
from vqvae2.runs.folder import RunFolder

NAME = "<b>cat & dog</b>"
"""A class name that must be escaped in a page."""

ESCAPED = "&lt;b&gt;cat &amp; dog&lt;/b&gt;"


def page_of(folder: RunFolder) -> str:
    return write_report(folder).read_text(encoding="utf-8")


def sections_of(page: str) -> dict[str, str]:
    sections = re.findall(r'<section id="(\w+)">(.*?)</section>', page, flags=re.DOTALL)
    return dict(sections)


def missing_of(page: str) -> str:
    """What the page says about sections that it does not have; "" if it has all."""
    match = re.search(r'<details class="missing".*?</details>', page, flags=re.DOTALL)
    return match[0] if match else ""


def verdict_of(page: str) -> str:
    """The sentences at the top."""
    return page.split('class="findings"')[1].split("</ul>")[0]


def change_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class ElementChecker(HTMLParser):
    """Collects the elements that are open, and those that are closed without being open."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)
